"""The virtio-fs daemon as it really runs: what it may, what it sees, how it ends."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import pytest

from kata.config.load import load
from kata.errors import HostError
from kata.linux.syscalls import MNT_DETACH, MS_BIND, MS_SHARED, mount, umount
from kata.runtime.sandbox import Sandbox
from kata.runtime.timing import Marks
from kata.storage import share, virtiofsd
from kata.storage.plan import Share
from kata.storage.sources import pin
from support import host

NAMESPACES = ("cgroup", "ipc", "mnt", "net", "pid", "uts")


@pytest.fixture
def program():
    try:
        return virtiofsd.find()
    except HostError as error:
        host.lacks(error.what)


def start(program, directory, *sources):
    """A running share of (source, name, readonly), settled."""
    pinned = {name: pin(source) for source, name, _ in sources}
    shares = [
        Share(source, name, readonly, pinned[name].is_directory)
        for source, name, readonly in sources
    ]
    try:
        fds = {name: source.fd for name, source in pinned.items()}
        running = share.start(shares, fds, share.Daemon(program), directory=directory)
    finally:
        for source in pinned.values():
            source.close()
    try:
        running.settle()
    except BaseException:
        running.stop()
        raise
    return running


@pytest.fixture
def running(program, directory):
    os.makedirs(f"{directory}/tree/inner")
    with open(f"{directory}/file", "w", encoding="utf-8") as stream:
        stream.write("x")
    running = start(
        program, directory, (f"{directory}/tree", "rw", False), (f"{directory}/tree", "ro", True),
        (f"{directory}/file", "one", True),
    )  # fmt: skip
    yield running
    running.stop()


def status(pid):
    with open(f"/proc/{pid}/status", encoding="utf-8") as stream:
        return dict(line.rstrip("\n").partition(":\t")[::2] for line in stream)


def mounts(pid):
    """(mount point, is read-only, options) of the process's mount namespace."""
    with open(f"/proc/{pid}/mountinfo", encoding="utf-8") as stream:
        lines = [line.split() for line in stream]
    return {fields[4]: fields[5].split(",") for fields in lines}


def test_it_has_no_rights_but_those_of_a_file_server(running):
    """Capabilities over files only, none to gain, a filter of its own, no new privileges."""
    facts = status(running.process.pid)
    assert {facts[f"Cap{kind}"] for kind in ("Inh", "Bnd", "Amb")} == {"0" * 16}
    assert int(facts["CapEff"], 16) == int(facts["CapPrm"], 16) == share.CAPABILITIES
    assert facts["NoNewPrivs"] == "1"
    assert facts["Seccomp"] == "2"
    assert facts["Groups"].split() == []


def test_all_namespaces_are_its_own(running):
    """It shares no namespace with us but the users' and the clocks'."""
    for kind in NAMESPACES:
        theirs = os.readlink(f"/proc/{running.process.pid}/ns/{kind}")
        assert theirs != os.readlink(f"/proc/self/ns/{kind}")


def test_it_sees_the_shares_and_nothing_else(running):
    """Its root is the shared directory; its own program is no longer to be seen."""
    root = f"/proc/{running.process.pid}/root"
    assert sorted(os.listdir(root)) == ["one", "ro", "rw"]
    assert os.listdir(f"{root}/rw") == ["inner"]
    seen = mounts(running.process.pid)
    assert set(seen) == {"/one", "/ro", "/rw"}
    for options in seen.values():
        assert {"nosuid", "nodev", "noexec"} <= set(options)
    assert "rw" in seen["/rw"]
    assert "ro" in seen["/ro"]
    with pytest.raises(OSError, match="Read-only"):
        os.mkdir(f"{root}/ro/new")
    with pytest.raises(OSError, match="Read-only"):
        open(f"{root}/one", "r+b")
    with pytest.raises(OSError, match="Read-only"):
        os.mkdir(f"{root}/new")


def test_its_descriptors_are_the_connection_and_the_root(running, directory):
    """Nothing leaks: null, the log pipe, the connection, its root, its own fd directory."""
    found = {}
    for number in os.listdir(f"/proc/{running.process.pid}/fd"):
        found[int(number)] = os.readlink(f"/proc/{running.process.pid}/fd/{number}").split(":")[0]
    assert sorted(found.values()) == sorted(("/null", "pipe", "pipe", "/", "socket", "/shared"))
    assert not [f for f in os.listdir(directory) if "vhost" in f]


def test_the_host_has_no_mount_of_it(running, directory):
    """Our mount table is as it was."""
    assert not any(directory in point for point in mounts("self"))
    assert running.process.poll() is None


def test_mounts_inside_are_shared_too_and_read_only_reaches_them(program, directory):
    """A mount below a source comes along (rbind), and read-only holds for it as well."""
    os.makedirs(f"{directory}/tree/inner")
    mount("none", f"{directory}/tree/inner", "tmpfs")
    try:
        open(f"{directory}/tree/inner/seen", "w").close()
        running = start(program, directory, (f"{directory}/tree", "t", True))
        try:
            root = f"/proc/{running.process.pid}/root/t"
            assert os.listdir(f"{root}/inner") == ["seen"]
            with pytest.raises(OSError, match="Read-only"):
                os.mkdir(f"{root}/inner/new")
        finally:
            running.stop()
    finally:
        umount(f"{directory}/tree/inner", MNT_DETACH)


def test_later_mounts_of_the_host_do_not_reach_it(program, directory):
    """Its copies are private, also of a source whose mounts are shared."""
    os.makedirs(f"{directory}/tree/inner")
    mount(f"{directory}/tree", f"{directory}/tree", None, MS_BIND)
    mount("", f"{directory}/tree", None, MS_SHARED)
    try:
        running = start(program, directory, (f"{directory}/tree", "t", False))
        try:
            mount("none", f"{directory}/tree/inner", "tmpfs")
            assert set(mounts(running.process.pid)) == {"/t"}
        finally:
            running.stop()
    finally:
        umount(f"{directory}/tree", MNT_DETACH)


def test_it_ends_when_the_vmm_closes_the_connection(running):
    """Without a VMM the daemon has nothing to do, and goes by itself."""
    running.close_vmm_fd()
    end = time.monotonic() + 10
    while running.process.poll() is None:
        assert time.monotonic() < end
        time.sleep(0.01)
    assert "virtiofsd ended" in str(running.failure())


def test_it_dies_with_its_parent(program, directory):
    """A supervisor that is killed takes the daemon with it."""
    os.mkdir(f"{directory}/tree")
    script = (
        "import sys, time\n"
        "from kata.storage import share\n"
        "from kata.storage.plan import Share\n"
        "from kata.storage.sources import pin\n"
        "d = sys.argv[2]\n"
        "source = pin(d + '/tree')\n"
        "s = Share(source.path, 't', False, True)\n"
        "r = share.start([s], {'t': source.fd}, share.Daemon(sys.argv[1]), directory=d)\n"
        "r.settle()\n"
        "print(r.process.pid, flush=True)\n"
        "time.sleep(100)\n"
    )
    command = [sys.executable, "-c", script, program, directory]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env={"PYTHONPATH": "src"}) as parent:
        pid = int(parent.stdout.readline())
        pidfd = os.pidfd_open(pid)
        parent.kill()
    import select

    assert select.select([pidfd], [], [], 10)[0] == [pidfd]
    os.close(pidfd)


def test_a_daemon_that_fails_says_why(directory):
    """A program that ends at once is reported with what it wrote."""
    fake = f"{directory}/virtiofsd"
    with open(fake, "w", encoding="utf-8") as stream:
        stream.write(
            "#!/bin/sh\ncase $1 in --version) echo virtiofsd 1.0;; "
            "*) echo no such luck >&2; exit 3;; esac\n"
        )
    os.chmod(fake, 0o755)
    with pytest.raises(HostError, match="exit status 3: no such luck"):
        start(fake, directory, ("/usr/share", "u", True))


def test_a_program_that_cannot_be_executed_is_an_error(directory):
    """The step that failed is named, and nothing is left."""
    fake = f"{directory}/virtiofsd"
    with open(fake, "w", encoding="utf-8") as stream:
        stream.write("#!/nonexistent/shell\n")
    os.chmod(fake, 0o755)
    memory = f"{directory}/kind"
    facts = os.stat(fake)
    with open(memory, "w", encoding="utf-8") as stream:
        identity = (facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns)
        stream.write(f"{fake} {' '.join(map(str, identity))} rust")
    source = pin("/usr/share")
    wanted = Share("/usr/share", "u", readonly=True, is_directory=True)
    try:
        running = share.start(
            [wanted], {"u": source.fd}, share.Daemon(fake, memory=memory), directory=directory
        )
    finally:
        source.close()
    try:
        with pytest.raises(HostError, match="cannot start virtiofsd: execute"):
            running.settle()
    finally:
        running.stop()


def test_a_sandbox_is_stopped_by_whoever_comes(running, directory):
    """The last containers of a pod may end at once: each thread that stops it finds it stopped."""
    with open(f"{directory}/none.toml", "w", encoding="utf-8"):
        pass
    first = SimpleNamespace(resources={})  # of a workload, all that is asked before a start
    sandbox = Sandbox(first, None, load(f"{directory}/none.toml"), Marks(), directory)
    sandbox._share = running
    failures = []
    line = threading.Barrier(3)

    def stop():
        line.wait()
        try:
            sandbox.stop()
            assert running.process.poll() is not None
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=stop) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
