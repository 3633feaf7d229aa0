"""``containerd-shim-kata-v2`` over its socket, driven as containerd does, with real machines."""

import os
import shutil
import threading
import time

import pytest

from kata.errors import AlreadyExists, InvalidInput, KataError, NotFound, Unsupported, WrongState
from kata.wire import containerd_metrics1, containerd_metrics2
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


def test_a_container_from_start_to_end(containerd):
    """Output, exit code and events are complete and in order; nothing is left."""
    path, reader = containerd.fifo("out")
    shim = simple(containerd, "one", "sh", "-c", "seq 3; exit 7", stdout=path)
    assert shim.of("State", "one").status == api.CREATED
    pid = shim.of("Start", "one").pid
    with open(f"/proc/{pid}/cmdline", "rb") as file:
        words = file.read().strip(b"\0").split(b"\0")
    assert words[:5] == [b"containerd-shim-kata-v2", b"-namespace", b"test", b"-id", b"one"]
    end = shim.of("Wait", "one")
    assert end.exit_status == 7
    assert end.exited_at.seconds > time.time() - 600
    assert until_end(reader) == b"1\n2\n3\n"
    state = shim.of("State", "one")
    assert (state.status, state.exit_status, state.stdout) == (api.STOPPED, 7, path)
    with pytest.raises(NotFound, match="process already finished"):
        shim.of("Kill", "one", signal=KILL)
    assert shim.of("Delete", "one").exit_status == 7
    with pytest.raises(NotFound):
        shim.of("State", "one")
    shim.of("Shutdown", "one")
    containerd.events.wait_for("/tasks/delete", "one")
    assert containerd.events.topics("one") == [
        "/tasks/create", "/tasks/start", "/tasks/exit", "/tasks/delete",
    ]  # fmt: skip
    # while the shim still ends, what it kept is there to be told
    assert containerd.delete("one").exit_status in (7, 137)



def test_added_processes(containerd):
    """Exec notes a process, Start runs it: with input, an exit code, and events of its own."""
    shim = simple(containerd, "box", "sleep", "1000")
    shim.of("Start", "box")
    given, taken = f"{containerd.directory}/in", containerd.fifo("eout")
    os.mkfifo(given)
    spec = process_spec("sh", "-c", "cat; exit 5")
    request = api.ExecRequest(id="box", exec_id="e1", stdin=given, stdout=taken[0], spec=spec)
    shim.call("Exec", request)
    with pytest.raises(AlreadyExists):
        shim.call("Exec", request)
    assert shim.of("State", "box", "e1").status == api.CREATED
    shim.of("Start", "box", "e1")
    with open(given, "wb") as file:
        file.write(b"what came in")
    shim.of("CloseIO", "box", "e1", stdin=True)
    assert shim.of("Wait", "box", "e1").exit_status == 5
    assert until_end(taken[1]) == b"what came in"
    exit_event = containerd.events.wait_for("/tasks/exec-started", "box")
    assert exit_event.exec_id == "e1"
    assert shim.of("Delete", "box", "e1").exit_status == 5
    with pytest.raises(NotFound):
        shim.of("Wait", "box", "e1")
    with pytest.raises(WrongState):
        shim.of("Delete", "box")
    finish(shim, "box")


def test_a_waiting_call_holds_up_nothing(containerd):
    """Other calls are answered while ten wait for the end; all of them hear of it."""
    shim = simple(containerd, "box", "sleep", "1000")
    shim.of("Start", "box")
    codes = []
    waiting = [
        threading.Thread(target=lambda: codes.append(shim.of("Wait", "box").exit_status))
        for _ in range(10)
    ]
    for thread in waiting:
        thread.start()
    assert shim.of("State", "box").status == api.RUNNING
    assert [p.pid for p in shim.of("Pids", "box").processes] == [shim.of("State", "box").pid]
    finish(shim, "box")
    for thread in waiting:
        thread.join(30)
    assert codes == [137] * 10


def test_pause_stats_update_and_what_is_refused(containerd):
    """The quick verbs."""
    shim = simple(containerd, "box", "sleep", "1000")
    shim.of("Start", "box")
    shim.of("Exec", "box", "early", spec=process_spec("true"))
    shim.of("Pause", "box")
    assert shim.of("State", "box").status == api.PAUSED
    with pytest.raises(WrongState, match="container not running"):
        shim.of("Pause", "box")
    with pytest.raises(WrongState, match="paused"):
        shim.of("Exec", "box", "late", spec=process_spec("true"))
    with pytest.raises(WrongState, match="paused"):
        shim.of("Start", "box", "early")
    shim.of("Resume", "box")
    with pytest.raises(WrongState, match="container not paused"):
        shim.of("Resume", "box")
    shim.of("Start", "box", "early")
    assert shim.of("Wait", "box", "early").exit_status == 0
    assert shim.of("State", "box").status == api.RUNNING
    assert {"/tasks/paused", "/tasks/resumed"} <= set(containerd.events.topics("box"))
    limits = api.AnyMessage(value=b'{"pids": {"limit": 77}}')
    shim.of("Update", "box", resources=limits)
    stats = shim.of("Stats", "box").stats
    kinds = {m.KIND: m for m in (containerd_metrics1, containerd_metrics2)}
    found = kinds[stats.type_url].Metrics.decode(stats.value)
    assert found.pids.limit == 77
    assert found.pids.current == 1
    assert found.cpu.encode()
    with pytest.raises(Unsupported):
        shim.of("Checkpoint", "box")
    with pytest.raises(NotFound):
        shim.of("State", "other")
    with pytest.raises(Unsupported):
        shim.call("Nonsense", api.TaskRequest(id="box"), api.TaskRequest)
    with pytest.raises(AlreadyExists):
        containerd.create(shim, "box")
    finish(shim, "box")


def test_what_was_never_started(containerd):
    """It can be deleted as it is, or killed and waited for; nobody hears of a start."""
    shim = simple(containerd, "box", "sleep", "1000")
    shim.of("Delete", "box")
    shim.of("Shutdown", "box")
    containerd.events.wait_for("/tasks/delete", "box")
    shim = simple(containerd, "two", "sleep", "1000")
    assert finish(shim, "two").exit_status == 137
    containerd.events.wait_for("/tasks/delete", "two")
    for name in ("box", "two"):
        assert "/tasks/start" not in containerd.events.topics(name)


def test_who_waits_hears_of_an_added_process_that_is_never_started(containerd):
    """Its deletion is its end: nobody waits on, and the shim ends at once."""
    shim = simple(containerd, "box", "sleep", "1000")
    shim.of("Start", "box")
    shim.of("Exec", "box", "more", spec=process_spec("true"))
    codes = []
    wait = lambda: codes.append(shim.of("Wait", "box", "more").exit_status)  # noqa: E731
    threading.Thread(target=wait, daemon=True).start()
    time.sleep(0.2)  # it waits
    assert shim.of("Delete", "box", "more").exit_status == 137
    until(lambda: codes == [137], 10, "the answer")
    finish(shim, "box")


def test_of_many_deletions_one_is_told(containerd):
    """Who comes second hears that it is gone, and no second event says so."""
    shim = simple(containerd, "box", "sleep", "1000")
    shim.of("Start", "box")
    shim.of("Kill", "box", signal=KILL)
    shim.of("Wait", "box")
    said = []

    def delete() -> None:
        try:
            said.append(shim.of("Delete", "box").exit_status)
        except NotFound:
            said.append("gone")

    asking = [threading.Thread(target=delete) for _ in range(6)]
    [thread.start() for thread in asking]
    until(lambda: len(said) == len(asking), 30, "all answers")
    shim.of("Shutdown", "box")
    assert sorted(said, key=str) == [137, *["gone"] * 5]
    until(lambda: not os.path.exists(shim.address.removeprefix("unix://")), 10, "the end")
    containerd.events.wait_for("/tasks/delete", "box")
    time.sleep(0.3)  # for a second one
    assert containerd.events.topics("box").count("/tasks/delete") == 1


def test_a_signal_that_there_is_not(containerd):
    """It is refused, as the kernel refuses it; 0 asks whether the process is there."""
    shim = simple(containerd, "box", "sleep", "1000")
    shim.of("Start", "box")
    for signal_ in (65, 200):
        with pytest.raises(InvalidInput, match=str(signal_)):
            shim.of("Kill", "box", signal=signal_)
    shim.of("Kill", "box", signal=0)
    finish(shim, "box")


def test_a_lack_of_memory_is_told(containerd):
    """Before the end, which is that of a killed process."""
    limits = {"memory": {"limit": 24 << 20}}
    namespaces = [{"type": kind} for kind in ("mount", "pid", "ipc", "uts", "network", "cgroup")]
    linux = {
        "namespaces": namespaces, "resources": limits,
        "cgroupsPath": f"/kata-test-shim/{os.getpid()}-hungry",
    }  # fmt: skip
    containerd.bundle("hungry", "tail", "/dev/zero", linux=linux)
    shim = containerd.start("hungry")
    containerd.create(shim, "hungry")
    shim.of("Start", "hungry")
    assert shim.of("Wait", "hungry").exit_status == 137
    containerd.events.wait_for("/tasks/exit", "hungry")
    topics = containerd.events.topics("hungry")
    assert topics.count("/tasks/oom") == 1
    assert topics.index("/tasks/oom") < topics.index("/tasks/exit")
    finish(shim, "hungry")


def test_a_missing_program_is_told_by_create(containerd):
    """In runc's words, and as no code that means "no such task"."""
    containerd.bundle("bad", "nosuchprogram")
    shim = containerd.start("bad")
    with pytest.raises(KataError, match="executable file not found") as caught:
        containerd.create(shim, "bad")
    assert caught.value.code == 2
    with pytest.raises(NotFound):
        shim.of("Delete", "bad")
    shim.of("Shutdown", "bad")


def test_containers_of_a_pod(containerd):
    """They share the machine and the host name; one more comes after the last has gone."""
    shim = pod(containerd)
    for name, code in (("first", 3), ("second", 4), ("first", 5)):
        path, reader = containerd.fifo(f"{name}-{code}")
        if code == 5:
            containerd.made.remove("first")
            os.rename(f"{containerd.directory}/bundles/first", f"{containerd.directory}/old")
        member(containerd, shim, name, "sh", "-c", f"hostname; exit {code}", stdout=path)
        shim.of("Start", name)
        assert shim.of("Wait", name).exit_status == code
        assert until_end(reader) == b"podname\n"
        assert shim.of("Delete", name).exit_status == code
        shim.of("Shutdown", name)  # refused in silence: the pod's sandbox is there
    assert shim.of("State", "pod").status == api.RUNNING
    finish(shim, "pod")


def test_a_volume_of_two_containers(containerd):
    """It is one thing to the guest's kernel, and outlives the container that brought it."""
    shim = pod(containerd)
    where = f"{containerd.directory}/volume"
    os.mkdir(where)
    volume = {"type": "bind", "source": where, "options": ["rbind", "rw"]}
    seen = []
    for name, path, words in (
        ("first", "/a/v", "touch file; stat -c %d:%i file; exec sleep 1000"),
        ("second", "/v", "stat -c %d:%i file"),
        ("third", "/v", "stat -c %d:%i file; echo more > file"),
    ):
        out, reader = containerd.fifo(f"{name}-out")
        mounts = [{**volume, "destination": path}]
        member(
            containerd, shim, name, "sh", "-c", f"cd {path}; {words}", mounts=mounts, stdout=out
        )
        shim.of("Start", name)
        if name == "first":
            seen.append(a_line(reader))
            os.close(reader)
            continue
        assert shim.of("Wait", name).exit_status == 0
        seen.append(until_end(reader))
        if name == "second":
            shim.of("Kill", "first", signal=KILL)
            shim.of("Wait", "first")
            shim.of("Delete", "first")
    assert len(set(seen)) == 1, seen
    assert content(f"{where}/file") == b"more\n"
    for name in ("second", "third"):
        shim.of("Delete", name)
    finish(shim, "pod")


def a_line(fd):
    """What comes out of a pipe until the end of a line."""
    found = b""
    deadline = time.monotonic() + 60
    while not found.endswith(b"\n"):
        assert time.monotonic() < deadline
        try:
            found += os.read(fd, 1024)
        except BlockingIOError:
            pass
        time.sleep(0.01)
    return found


def test_a_machine_that_dies_ends_its_tasks(containerd):
    """137 and an event for each of them; the shim goes on answering."""
    shim = pod(containerd)
    member(containerd, shim, "inside", "sleep", "1000")
    shim.of("Start", "inside")
    pid = shim.of("Connect", "pod").shim_pid
    with open(f"/proc/{pid}/task/{pid}/children", encoding="utf-8") as file:
        for child in file.read().split():
            with open(f"/proc/{child}/comm", encoding="utf-8") as comm:
                if comm.read().startswith("qemu"):
                    os.kill(int(child), KILL)
    for name in ("inside", "pod"):
        assert shim.of("Wait", name).exit_status == 137
        assert containerd.events.wait_for("/tasks/exit", name).exit_status == 137
        assert shim.of("Delete", name).exit_status == 137
    shim.of("Shutdown", "pod")


def test_a_shim_that_was_killed_leaves_nothing(containerd):
    """The machine dies with it, and ``delete`` removes the rest, twice if asked to."""
    shim = simple(containerd, "box", "sleep", "1000")
    shim.of("Start", "box")
    os.kill(shim.of("Connect", "box").shim_pid, KILL)
    assert containerd.delete("box").exit_status == 137
    assert containerd.delete("box").exit_status == 137
    assert not os.path.exists(shim.address.removeprefix("unix://"))
    again = containerd.start("box")
    containerd.create(again, "box")
    finish(again, "box")


def test_a_shim_that_was_killed_before_it_was_asked(containerd):
    """containerd knows nothing of it: the next sandbox that ends takes it along, or ``delete``."""
    for ends in ("shim", "delete"):
        left = containerd.bundle(f"left-{ends}", "true")
        address = containerd.start(f"left-{ends}").address.removeprefix("unix://")
        with open(f"{left}/shim.pid", encoding="utf-8") as file:
            os.kill(int(file.read()), KILL)
        shutil.rmtree(left)
        containerd.made.remove(f"left-{ends}")
        if ends == "shim":
            shim = simple(containerd, "box", "sleep", "1000")
            assert os.path.exists(address)
            finish(shim, "box")
        else:  # more than one, if it is just dying
            until(lambda path=address: _deleted(containerd, path), 10, "the end of the socket")
        until(lambda path=address: not os.path.exists(path), 10, "the end of the socket")
        kept = [f"{containerd.state}/{kind}" for kind in ("names", "uids")]
        until(lambda of=kept: not any(map(os.listdir, of)), 10, "the end of name and user id")


def _deleted(containerd, path):
    """Delete what is long gone; whether a socket went with it."""
    containerd.delete("box")
    return not os.path.exists(path)


def test_containerd_may_go_away_and_come_back(containerd):
    """Events wait for it, and output waits in the pipes."""
    path, reader = containerd.fifo("out")
    shim = simple(
        containerd, "box", "sh", "-c", "while [ ! -e /go ]; do sleep 0.1; done; echo late",
        stdout=path,
    )  # fmt: skip
    shim.of("Start", "box")
    containerd.events.wait_for("/tasks/start", "box")
    containerd.events.vanish()
    os.close(reader)
    shim.call("Exec", api.ExecRequest(id="box", exec_id="go", spec=process_spec("touch", "/go")))
    shim.of("Start", "box", "go")
    assert shim.of("Wait", "box").exit_status == 0
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    assert until_end(reader) == b"late\n"
    containerd.events.appear()
    containerd.events.wait_for("/tasks/exit", "box")
    topics = containerd.events.topics("box")
    assert topics.index("/tasks/exec-added") < topics.index("/tasks/exec-started")
    finish(shim, "box")


def test_a_terminal(containerd):
    """Raw bytes over the pipes, and a size, which is no other process's."""
    path, reader = containerd.fifo("out")
    given = f"{containerd.directory}/in"
    os.mkfifo(given)
    containerd.bundle("tty", "sh", terminal=True)
    shim = containerd.start("tty")
    containerd.create(shim, "tty", terminal=True, stdin=given, stdout=path)
    shim.of("Start", "tty")
    shim.of("ResizePty", "tty", width=91, height=17)
    shim.of("Exec", "tty", "more", terminal=True, spec=process_spec("true"))
    shim.of("ResizePty", "tty", "more", width=1, height=1)  # it has no terminal yet
    with open(given, "wb", buffering=0) as file:
        file.write(b"stty size; exit 2\n")
        assert shim.of("Wait", "tty").exit_status == 2
    assert b"17 91" in until_end(reader)
    finish(shim, "tty")


def test_a_logging_program_and_a_file(containerd):
    """The other two ways for output."""
    log, script = f"{containerd.directory}/log", f"{containerd.directory}/logger"
    with open(script, "w", encoding="utf-8") as file:
        file.write('#!/bin/sh\nexec 5>&-\n{ echo "$CONTAINER_ID $1 $2"; cat <&3; } > "$2"\n')
    os.chmod(script, 0o755)
    shim = simple(containerd, "box", "echo", "said", stdout=f"binary://{script}?to={log}")
    shim.of("Start", "box")
    shim.of("Wait", "box")
    finish(shim, "box")
    deadline = time.monotonic() + 20
    while content(log) != f"box to {log}\nsaid\n".encode():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    where = f"{containerd.directory}/made/here.log"
    shim = simple(containerd, "two", "echo", "kept", stdout=f"file://{where}")
    shim.of("Start", "two")
    shim.of("Wait", "two")
    finish(shim, "two")
    assert content(where) == b"kept\n"


def test_hooks(containerd):
    """They run at their moments, with a pid that leads to the sandbox's network."""
    log = f"{containerd.directory}/hooks"
    script = f"{containerd.directory}/hook"
    with open(script, "w", encoding="utf-8") as file:
        file.write(
            "#!/bin/sh\nstate=$(cat)\n"
            "pid=$(echo \"$state\" | sed -n 's/.*\"pid\": *\\([0-9]*\\).*/\\1/p')\n"
            f'echo $1 $(test -n "$pid" && readlink /proc/$pid/ns/net) '
            f"$(readlink /proc/self/ns/net) >> {log}\n"
        )
    os.chmod(script, 0o755)
    kinds = ("prestart", "createRuntime", "createContainer", "poststart", "poststop")
    hooks = {kind: [{"path": script, "args": ["hook", kind]}] for kind in kinds}
    containerd.bundle("box", "sleep", "1000", hooks=hooks)
    shim = containerd.start("box")
    containerd.create(shim, "box")
    inside = os.readlink(f"/proc/{shim.of('State', 'box').pid}/ns/net")
    shim.of("Start", "box")
    finish(shim, "box")
    host = os.readlink("/proc/self/ns/net")
    rows = [row.split() for row in content(log).decode().splitlines()]
    assert [row[0] for row in rows] == list(kinds)
    assert [row[1:] for row in rows] == [
        [inside, host], [inside, host], [inside, inside], [inside, host], [host],
    ]  # fmt: skip


def content(path):
    """What is in a file, if it is there."""
    if not os.path.exists(path):
        return b""
    with open(path, "rb") as file:
        return file.read()
