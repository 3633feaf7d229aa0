"""The pids that containerd is told: one for each process, of the shim's on the host."""

import os

import pytest

from kata.wire import containerd_task as api
from support.containerd import (
    KILL,
    finish,
    member,
    pod,
    process_spec,
    simple,
    until_end,
)  # fmt: skip
from support.cri import until


def network(pid):
    """The network namespace behind a pid."""
    return os.stat(f"/proc/{pid}/ns/net").st_ino


def ended(containerd, name):
    """The event of the end of a container's first process."""

    def told():
        return [e for topic, e in containerd.events.seen if topic == "/tasks/exit" and e.id == name]

    until(told, 10, "the event")
    return told()[0]


def added(shim, name, exec_id, *args):
    """The pid of a process that was added and runs."""
    shim.of("Exec", name, exec_id, spec=process_spec(*args))
    assert shim.of("State", name, exec_id).pid == 0
    return shim.of("Start", name, exec_id).pid


def test_each_process_has_a_pid_of_its_own(containerd):
    """All of them lead to the pod's network, and go when the process does."""
    shim = pod(containerd)
    for name in ("one", "two"):
        member(containerd, shim, name, "sleep", "1000")
    found = {name: shim.of("Start", name).pid for name in ("one", "two")}
    found["pod"] = shim.of("State", "pod").pid
    found["exec"] = added(shim, "one", "more", "sleep", "1000")
    assert found["pod"] == shim.of("Connect", "pod").shim_pid
    assert len(set(found.values())) == 4
    assert len({network(pid) for pid in found.values()}) == 1
    assert network("self") != network(found["one"])
    for name in ("pod", "one", "two"):
        assert shim.of("State", name).pid == found[name]
        assert shim.of("Connect", name).task_pid == found[name]
        assert containerd.events.wait_for("/tasks/create", name).pid == found[name]
        assert containerd.events.wait_for("/tasks/start", name).pid == found[name]
    told = shim.of("Pids", "one").processes
    assert [item.pid for item in told] == [found["one"], found["exec"]]
    assert api.ProcessDetails.decode(told[1].info.value).exec_id == "more"
    shim.of("Kill", "one", "more", signal=KILL)
    shim.of("Wait", "one", "more")
    assert [item.pid for item in shim.of("Pids", "one").processes] == [found["one"]]
    assert shim.of("Delete", "one", "more").pid == found["exec"]
    until(lambda: not os.path.exists(f"/proc/{found['exec']}"), 10, "the end of the pid")
    for name in ("one", "two"):
        assert finish(shim, name).pid == found[name]
        assert ended(containerd, name).pid == found[name]
        until(lambda of=name: not os.path.exists(f"/proc/{found[of]}"), 10, "the end of the pid")
    finish(shim, "pod")


def test_what_did_not_start_leaves_no_pid(containerd):
    """Neither a container nor an added process: as many threads as before."""
    shim = pod(containerd)
    member(containerd, shim, "one", "sleep", "1000")
    pid = shim.of("State", "pod").pid
    threads = lambda: len(os.listdir(f"/proc/{pid}/task"))  # noqa: E731
    before = threads()
    for number in range(3):
        with pytest.raises(Exception, match="not found"):
            member(containerd, shim, f"bad{number}", "nosuchprogram")
        shim.of("Exec", "one", "bad", spec=process_spec("nosuchprogram"))
        with pytest.raises(Exception, match="not found"):
            shim.of("Start", "one", "bad")
        shim.of("Delete", "one", "bad")
    until(lambda: threads() <= before, 10, "the end of the threads")
    finish(shim, "one")
    finish(shim, "pod")


def test_processes_of_another_container(containerd):
    """A pid namespace named by a pid is that of the container whose pid it is."""
    shim = pod(containerd)
    for name, seconds in (("one", "1001"), ("two", "1002")):
        member(containerd, shim, name, "sleep", seconds)
        shim.of("Start", name)
    path, reader = containerd.fifo("out")
    pids = f"/proc/{shim.of('State', 'two').pid}/ns/pid"
    member(containerd, shim, "debug", "ps", "-o", "args", pids=pids, stdout=path)
    shim.of("Start", "debug")
    assert shim.of("Wait", "debug").exit_status == 0
    rows = until_end(reader).decode().splitlines()[1:]
    assert [row.strip() for row in rows] == ["sleep 1002", "ps -o args"]
    for name in ("debug", "two", "one", "pod"):
        finish(shim, name)


def test_a_container_alone_has_the_shim_s(containerd):
    """So engines find it in lists of processes too."""
    shim = simple(containerd, "box", "sleep", "1000")
    pid = shim.of("Start", "box").pid
    assert pid == shim.of("Connect", "box").shim_pid
    other = added(shim, "box", "more", "true")
    assert other != pid
    assert network(pid) != network("self")
    shim.of("Wait", "box", "more")
    finish(shim, "box")
