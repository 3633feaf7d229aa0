"""The process of the pid file: what conmon and containerd build on.

It is a process of the host, alive while the container's is; it passes signals on and ends with
its code; it is in the container's network namespace, where Docker looks for it.
"""

import os
import signal
import subprocess

import pytest

from conformance.bundle import config, namespaces
from conformance.container import eventually, reap

TRAP = "trap 'echo got TERM; exit 7' TERM; trap 'echo got USR1' USR1; echo ready; "
WAIT = "while :; do sleep 0.05; done"


def alive(pid: int) -> bool:
    """Whether a process is there and is no zombie."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.fixture(scope="module")
def network(suite):
    """A network namespace as an engine prepares it: its path."""
    name = f"conf-{os.getpid()}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    yield f"/run/netns/{name}"
    subprocess.run(["ip", "netns", "delete", name], check=True)


@pytest.fixture(scope="module")
def trapping(suite, network):
    """A container that answers signals, in a prepared network namespace."""
    spec = config("sh", "-c", TRAP + WAIT, linux={"namespaces": namespaces(network=network)})
    with suite.running(spec) as container:
        container.streams.expect("ready\n")
        yield container


def test_pid_file_is_a_bare_number(trapping):
    """The file holds the number alone."""
    with open(f"{trapping.bundle}/pid", encoding="utf-8") as file:
        assert file.read().isdigit()


def test_alive_while_the_container_runs(trapping):
    """The process is there."""
    assert alive(trapping.pid)


def test_is_a_child_of_the_subreaper(trapping):
    """It came to the caller when the runtime ended."""
    with open(f"/proc/{trapping.pid}/stat", encoding="utf-8") as file:
        assert int(file.read().rpartition(")")[2].split()[1]) == os.getpid()


def test_is_in_the_prepared_network_namespace(trapping, network):
    """Its network namespace is the one the engine gave."""
    assert os.stat(f"/proc/{trapping.pid}/ns/net").st_ino == os.stat(network).st_ino


def test_is_in_the_container_group(trapping):
    """It is in the group that the config names, where engines read statistics."""
    with open(f"/proc/{trapping.pid}/cgroup", encoding="utf-8") as file:
        assert f"/conformance/{trapping.id}" in file.read()


def test_group_exists(trapping):
    """The group named by cgroupsPath is there while the container is."""
    assert groups(trapping.id)


def groups(name: str) -> list[str]:
    """The directories of a container's group, in any hierarchy."""
    bases = ["/sys/fs/cgroup", *(f"/sys/fs/cgroup/{n}" for n in os.listdir("/sys/fs/cgroup"))]
    return [b for b in bases if os.path.isdir(f"{b}/conformance/{name}") and "unified" not in b]


def test_group_goes_with_the_container(suite):
    """After delete the group is gone."""
    with suite.running(config("sleep", "1000")) as container:
        assert groups(container.id)
        container.delete("--force").ok()
        assert not groups(container.id)


def test_signals_are_passed_on(trapping):
    """A signal sent to it by number reaches the program."""
    os.kill(trapping.pid, signal.SIGUSR1)
    trapping.streams.expect("got USR1\n")


def test_is_in_the_list_of_processes(trapping):
    """ps names it."""
    done = trapping.runtime("ps", "--format", "json", trapping.id).ok()
    assert trapping.pid in done.json()


def test_fresh_network_namespace(suite):
    """Without a path its network namespace is not the host's, from create on."""
    with suite.created(config("true")) as container:
        ours = os.stat("/proc/self/ns/net").st_ino
        assert os.stat(f"/proc/{container.pid}/ns/net").st_ino != ours


def test_alive_before_start(suite):
    """It is there between create and start."""
    with suite.created(config("true")) as container:
        assert alive(container.pid)


def test_code_of_a_trapped_signal(suite):
    """A program that ends by its own handler gives its own code."""
    with suite.running(config("sh", "-c", TRAP + WAIT)) as container:
        container.streams.expect("ready\n")
        os.kill(container.pid, signal.SIGTERM)
        assert container.wait() == 7
        assert container.out.endswith("got TERM\n")


def test_killing_it_kills_the_container(suite):
    """SIGKILL to it is SIGKILL to the container."""
    folder = suite.folder()
    mount = {"destination": "/shared", "type": "bind", "source": folder, "options": ["bind"]}
    script = "while :; do date +%s%N >/shared/now; sleep 0.05; done"
    with suite.running(config("sh", "-c", script, mounts=(mount,))) as container:
        eventually(lambda: os.path.exists(f"{folder}/now"), "the first write")
        os.kill(container.pid, signal.SIGKILL)
        assert container.wait() == 137
        eventually(lambda: container.status == "stopped", "the stop")
        os.unlink(f"{folder}/now") if os.path.exists(f"{folder}/now") else None
        container.streams.drain()
        assert not os.path.exists(f"{folder}/now")


def test_kill_verb_ends_it(suite):
    """The verb kill with 9 ends it with the code of SIGKILL."""
    with suite.running(config("sleep", "1000")) as container:
        container.kill("9").ok()
        assert container.wait() == 137


def test_dies_with_the_container(suite):
    """It ends when the program does, not before."""
    with suite.running(config("sh", "-c", "echo on; sleep 0.4; exit 9")) as container:
        container.streams.expect("on\n")
        assert alive(container.pid)
        assert container.wait() == 9


@pytest.fixture(scope="module")
def host(suite):
    """A container that others are started in."""
    with suite.running(config("sleep", "100000")) as container:
        yield container


def process(*args: str, **more) -> dict:
    """A process.json."""
    return {
        "args": list(args),
        "cwd": "/",
        "env": ["PATH=/bin"],
        "user": {"uid": 0, "gid": 0},
    } | more


def test_exec_has_one_of_its_own(host):
    """A process added by exec has a pid file and a process of its own."""
    with host.spawn(process("sleep", "1000")) as added:
        assert added.pid != host.pid
        assert alive(added.pid)
        os.kill(added.pid, signal.SIGKILL)
        assert added.wait() == 137
    assert host.status == "running"


@pytest.mark.parametrize("code", [0, 5, 255])
def test_exec_code(host, code):
    """It ends with the code of the process that was added."""
    with host.spawn(process("sh", "-c", f"exit {code}")) as added:
        assert added.wait() == code


def test_exec_signals_are_passed_on(host):
    """Signals to it reach the process that was added."""
    with host.spawn(process("sh", "-c", TRAP + WAIT)) as added:
        added.streams.expect("ready\n")
        os.kill(added.pid, signal.SIGTERM)
        assert added.wait() == 7


def test_exec_network_namespace(host):
    """It is in the container's network namespace."""
    with host.spawn(process("sleep", "1000")) as added:
        ours, theirs = (os.stat(f"/proc/{pid}/ns/net").st_ino for pid in (host.pid, added.pid))
        assert ours == theirs
        os.kill(added.pid, signal.SIGKILL)
        added.wait()


def test_exec_ends_with_the_container(suite):
    """When the container is killed, so is what was added."""
    with suite.running(config("sleep", "1000")) as container:
        with container.spawn(process("sleep", "1000")) as added:
            container.kill("9").ok()
            assert added.wait() == 137  # first: the namespace ends when all in it are reaped
            assert container.wait() == 137


def test_run_detached_has_one(suite):
    """run --detach leaves the same kind of process."""
    container = suite.container(config("sh", "-c", "sleep 0.3; exit 4"))
    words = ["run", "--detach", "--bundle", container.bundle, "--pid-file",
             f"{container.bundle}/pid", container.id]  # fmt: skip
    try:
        container.call(words).ok()
        assert alive(container.pid)
        assert reap(container.pid) == 4
    finally:
        container.delete("--force")
        container.pid = 0
        container.finish()
