"""containerd's sandbox API: a machine without a container, then containers in it."""

import os
import shutil
import signal
import threading

import pytest

from kata.errors import KataError, NotFound, WrongState
from kata.linux.namespaces import new_network, remove_mounted
from kata.linux.syscalls import MNT_DETACH, mount, umount
from kata.wire import containerd_sandbox as api
from kata.wire.calls import Empty
from kata.wire.containerd_types import SANDBOX_SERVICE
from kata.wire.ttrpc import AnyMessage
from support import isolation, leaks
from support.containerd import Containerd, Shim, until_end
from support.cri import until
from support.pool import KATA, serving
from support.vm import DATA

NAMES = (
    "df -k /dev/shm | tail -1; cat /proc/sys/kernel/shmmni; hostname; "
    "cat /etc/hostname /etc/resolv.conf /etc/hosts"
)
TYPE, SANDBOX = "io.kubernetes.cri.container-type", "io.kubernetes.cri.sandbox-id"
POD = AnyMessage(
    type_url="type.googleapis.com/runtime.v1.PodSandboxConfig",
    value=api.PodConfig(
        hostname="podname",
        linux=api.LinuxPodConfig(sysctls={"kernel.shmmni": "77"}),
        dns_config=api.DnsConfig(servers=["10.1.2.3"], searches=["a.local"], options=["ndots:5"]),
    ).encode(),
)


@pytest.fixture
def netns(tmp_path):
    """A network namespace by its path."""
    path = f"{tmp_path}/netns"
    os.close(new_network(path))
    yield path
    remove_mounted(path)


@pytest.fixture
def containerd(prepared, tmp_path):  # the guest image
    """A containerd; whatever it made is gone afterwards."""
    made = Containerd(str(tmp_path), DATA)
    yield made
    made.close()
    if os.path.exists(made.state):
        assert not set(os.listdir(made.state)) - {"cache", "names", "uids"}


def ask(shim, method, **fields):
    """Call a method of the sandbox service."""
    kinds = api.METHODS[method]
    request = kinds[0](sandbox_id="pod", **fields)
    return shim.call(method, request, kinds[1], service=SANDBOX_SERVICE)


@pytest.fixture
def bundles(tmp_path):
    """Where bundles lie, in memory as below /run; it outlives the containerd."""
    path = f"{tmp_path}/bundles"
    os.makedirs(path, exist_ok=True)
    mount("none", path, "tmpfs", 0, "size=200m")
    yield path
    umount(path, MNT_DETACH)


def test_a_sandbox_and_its_containers(bundles, containerd, netns):
    """Made, started, used by two containers that share names, stopped, waited for."""
    bundle = f"{bundles}/pod"
    os.makedirs(bundle)
    containerd.made.append("pod")
    shim = containerd.start("pod")
    with pytest.raises(WrongState):
        ask(shim, "PingSandbox")
    with pytest.raises(KataError, match="network namespace"):
        ask(shim, "CreateSandbox", bundle_path=bundle, netns_path="/none", options=POD)
    ask(shim, "CreateSandbox", bundle_path=bundle, netns_path=netns, options=POD)
    pid = ask(shim, "StartSandbox").pid
    inside = os.stat(f"/proc/{pid}/ns/net").st_ino
    assert inside == os.stat(netns).st_ino
    assert ask(shim, "Platform").platform.os == "linux"
    assert ask(shim, "PingSandbox") == Empty()
    status = ask(shim, "SandboxStatus", verbose=True)
    assert (status.state, status.pid) == ("SANDBOX_READY", pid)
    assert "vmm_pid" in status.info["kata"]
    for name in ("one", "two"):
        container(containerd, shim, name, pid)
    ask(shim, "StopSandbox", timeout_secs=10)
    assert ask(shim, "WaitSandbox").exit_status == 0
    assert ask(shim, "SandboxStatus").state == "SANDBOX_NOTREADY"
    with pytest.raises(WrongState):
        ask(shim, "PingSandbox")
    with pytest.raises(NotFound):
        shim.call(
            "PingSandbox", api.SandboxRequest(sandbox_id="other"), Empty, service=SANDBOX_SERVICE
        )
    ask(shim, "ShutdownSandbox")


def container(containerd, shim: Shim, name: str, pid: int) -> None:
    """Run a container in the sandbox to its end."""
    path, reader = containerd.fifo(name)
    namespaces = [{"type": "mount"}, {"type": "pid"}, {"type": "cgroup"}]
    for kind, file in (("network", "net"), ("ipc", "ipc"), ("uts", "uts")):
        namespaces.append({"type": kind, "path": f"/proc/{pid}/ns/{file}"})
    containerd.bundle(
        name, "sh", "-c", f"{NAMES}; exit 3", hostname="",
        annotations={TYPE: "container", SANDBOX: "pod"}, linux={"namespaces": namespaces},
    )  # fmt: skip
    containerd.create(shim, name, stdout=path)
    shim.of("Start", name)
    assert shim.of("Wait", name).exit_status == 3
    said = until_end(reader).decode().splitlines()
    assert said.pop(0).split()[1] == "65536"  # as containerd's own, not the host's /run
    assert said[:3] == ["77", "podname", "podname"]
    assert said[3:6] == ["search a.local", "nameserver 10.1.2.3", "options ndots:5"]
    with open("/etc/hosts", encoding="utf-8") as file:
        assert said[6:] == file.read().splitlines()
    assert shim.of("Delete", name).exit_status == 3
    shim.of("Shutdown", name)  # says nothing about the sandbox
    assert ask(shim, "PingSandbox") == Empty()


def made(containerd, netns):
    """A sandbox that was made and started: its shim, and the shim's pid."""
    bundle = f"{containerd.directory}/bundles/pod"
    os.makedirs(bundle)
    containerd.made.append("pod")
    shim = containerd.start("pod")
    ask(shim, "CreateSandbox", bundle_path=bundle, netns_path=netns, options=POD)
    return shim, ask(shim, "StartSandbox").pid


def test_what_is_asked_twice(containerd, netns):
    """Making, stopping and ending it once more is no error; who waits hears of the end."""
    shim, pid = made(containerd, netns)
    bundle = f"{containerd.directory}/bundles/pod"
    ask(shim, "CreateSandbox", bundle_path=bundle, netns_path=netns, options=POD)
    assert ask(shim, "StartSandbox").pid == pid
    codes = []
    wait = lambda: codes.append(ask(shim, "WaitSandbox").exit_status)  # noqa: E731
    waiting = threading.Thread(target=wait)
    waiting.start()
    container(containerd, shim, "one", pid)
    assert codes == []  # a container's end is not the sandbox's
    for _ in range(2):
        ask(shim, "StopSandbox", timeout_secs=10)
    waiting.join(30)
    assert codes == [0]
    assert ask(shim, "SandboxStatus").pid == 0
    assert ask(shim, "SandboxStatus").exited_at.seconds > 0
    ask(shim, "ShutdownSandbox")
    until(lambda: ended(pid), 20, "the end of the shim")
    assert kept(containerd) == []


def test_a_machine_that_dies(containerd, netns):
    """Who waits for the sandbox hears of it, and its shim still answers, until Shutdown."""
    shim, pid = made(containerd, netns)
    with open(f"/proc/{pid}/task/{pid}/children", encoding="utf-8") as file:
        children = file.read().split()
    for child in children:
        with open(f"/proc/{child}/comm", encoding="utf-8") as file:
            if file.read().startswith("qemu"):
                os.kill(int(child), signal.SIGKILL)
    assert ask(shim, "WaitSandbox").exit_status == 137
    with pytest.raises(WrongState):
        ask(shim, "PingSandbox")
    assert ask(shim, "SandboxStatus").state == "SANDBOX_NOTREADY"
    ask(shim, "StopSandbox", timeout_secs=10)
    ask(shim, "ShutdownSandbox")
    until(lambda: ended(pid), 20, "the end of the shim")
    assert kept(containerd) == []


@pytest.fixture
def empty(containerd):
    """Starts shims without a sandbox: a bundle's path, the address, the shim's pid."""

    def start(name):
        bundle = f"{containerd.directory}/bundles/{name}"
        os.makedirs(bundle)
        containerd.made.append(name)
        address = containerd.start(name).address.removeprefix("unix://")
        until(lambda: kept(containerd), 10, "its name on disk")
        with open(f"{bundle}/shim.pid", encoding="utf-8") as file:
            return bundle, address, int(file.read())

    return start


def kept(containerd):
    """What is on disk of shims."""
    there = set(os.listdir(containerd.state)) if os.path.exists(containerd.state) else set()
    return sorted(there - {"cache", "names", "uids"})


def ended(pid):
    """Whether a process is gone, or only waits to be reaped."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
            return file.read().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_a_sandbox_that_is_never_made(containerd, empty):
    """Shutdown ends the shim, and nothing is left of it."""
    _, address, pid = empty("pod")
    ask(Shim(f"unix://{address}"), "ShutdownSandbox")
    assert not os.path.exists(address)
    assert kept(containerd) == []
    until(lambda: ended(pid), 10, "the end of the shim")


def test_a_shim_that_is_killed_before_it_was_asked(containerd, empty):
    """What it leaves, when its bundle is gone, goes with the next ``delete`` of any other."""
    bundle, address, pid = empty("lost")
    os.kill(pid, signal.SIGKILL)
    until(lambda: ended(pid), 10, "the end of the shim")
    os.makedirs(f"{containerd.directory}/bundles/other")
    containerd.delete("other")
    assert os.path.exists(address)  # the bundle is there: somebody will ask for it
    shutil.rmtree(bundle)
    containerd.made.remove("lost")
    containerd.delete("other")
    assert not os.path.exists(address)
    assert kept(containerd) == []
    assert os.listdir(f"{containerd.state}/names") == []


@pytest.mark.parametrize("killed", [False, True])
def test_a_shim_without_a_sandbox_is_deleted(containerd, empty, killed):
    """It is ended if it lives; its socket and its name go; once more is no error."""
    _, address, pid = empty("pod")
    if killed:
        os.kill(pid, signal.SIGKILL)
    containerd.delete("pod")
    assert not os.path.exists(address)
    assert kept(containerd) == []
    until(lambda: ended(pid), 10, "the end of the shim")
    containerd.delete("pod")
    again = empty_again(containerd)
    ask(again, "ShutdownSandbox")


def empty_again(containerd):
    """Another shim for the same sandbox."""
    shim = containerd.start("pod")
    with pytest.raises(WrongState, match="no sandbox yet"):
        ask(shim, "PingSandbox")
    return shim


def test_what_lost_its_parent_is_reaped(containerd, netns):
    """With one pid namespace for the pod, orphans come to its first process, which takes them."""
    shim, pid = made(containerd, netns)
    path, reader = containerd.fifo("orphans")
    namespaces = [{"type": "mount"}, {"type": "cgroup"}]
    for kind, file in (("network", "net"), ("ipc", "ipc"), ("uts", "uts"), ("pid", "pid")):
        namespaces.append({"type": kind, "path": f"/proc/{pid}/ns/{file}"})
    words = 'sh -c "sleep 0.2 &"; sleep 1; cat /proc/[0-9]*/stat | cut -d" " -f2-4'
    containerd.bundle(
        "box", "sh", "-c", words, hostname="",
        annotations={TYPE: "container", SANDBOX: "pod"}, linux={"namespaces": namespaces},
    )  # fmt: skip
    containerd.create(shim, "box", stdout=path)
    shim.of("Start", "box")
    assert shim.of("Wait", "box").exit_status == 0
    rows = [row.split() for row in until_end(reader).decode().splitlines()]
    assert [row for row in rows if "Z" in row] == [], rows
    assert "(sh)" in [row[0] for row in rows]
    shim.of("Delete", "box")
    ask(shim, "ShutdownSandbox")
    until(lambda: ended(pid), 20, "the end of the shim")


@pytest.fixture
def pool(containerd, tmp_path):
    """A pool of one, for the shims of this containerd."""
    with serving([KATA], containerd.env, 1, f"{tmp_path}/factory.log") as kept:
        yield kept


def test_a_sandbox_is_a_ready_one(containerd, netns, pool):
    """The shim is a member from CreateSandbox on, on the connection that this came on."""
    [member] = pool.ready()
    shim, pid = made(containerd, netns)
    assert pid == member
    with open(f"{containerd.directory}/bundles/pod/shim.pid", encoding="utf-8") as file:
        assert int(file.read()) == member
    assert os.stat(f"/proc/{pid}/ns/net").st_ino == os.stat(netns).st_ino
    assert isolation.status(pid)["Name"] == "containerd-shim"
    for name in ("one", "two"):
        container(containerd, shim, name, pid)
    ask(shim, "StopSandbox", timeout_secs=10)
    assert ask(shim, "WaitSandbox").exit_status == 0
    ask(shim, "ShutdownSandbox")
    until(lambda: ended(pid), 20, "the end of the shim")
    assert not set(kept(containerd)) - {"factory.sock"}


def test_a_sandbox_of_another_shape_has_a_machine_of_its_own(containerd, netns, pool):
    """What no member fits is made as without a pool."""
    [member] = pool.ready()
    bundle = f"{containerd.directory}/bundles/pod"
    os.makedirs(bundle)
    containerd.made.append("pod")
    shim = containerd.start("pod")
    resources = api.PodResources(memory_limit_in_bytes=1 << 30)
    large = AnyMessage(
        type_url=POD.type_url,
        value=api.PodConfig(linux=api.LinuxPodConfig(resources=resources)).encode(),
    )
    ask(shim, "CreateSandbox", bundle_path=bundle, netns_path=netns, options=large)
    assert ask(shim, "StartSandbox").pid != member
    assert pool.ready() == {member}
    ask(shim, "ShutdownSandbox")


def test_a_killed_shim_that_was_a_ready_one(containerd, netns, pool):
    """Its machine goes with it, and what it left with the clean-up that containerd asks for."""
    shim, pid = made(containerd, netns)
    machine = leaks.children(pid)
    os.kill(pid, signal.SIGKILL)
    until(lambda: ended(pid) and all(ended(c) for c in machine), 20, "the end of its processes")
    containerd.delete("pod")
    assert not os.path.exists(shim.address.removeprefix("unix://"))
    assert not set(kept(containerd)) - {"factory.sock"}


def test_a_member_that_does_not_answer_is_passed_over(containerd, netns, pool):
    """The shim makes the machine itself, on the same connection."""
    [member] = pool.ready()
    os.kill(member, signal.SIGSTOP)
    shim, pid = made(containerd, netns)
    assert pid != member
    os.kill(member, signal.SIGKILL)
    assert ask(shim, "PingSandbox") == Empty()
    ask(shim, "ShutdownSandbox")
    until(lambda: ended(pid), 20, "the end of the shim")
