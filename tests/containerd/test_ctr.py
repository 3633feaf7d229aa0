"""ctr: containers run, are added to, paused, killed, and leave nothing."""

from __future__ import annotations

import concurrent.futures
import os
import pathlib
import time

import pytest

from containerd.differences import differs
from support import leaks
from support.cri import until
from support.engines import IMAGE
from support.node import processes


def test_output_and_exit_codes(ctr):
    """Both outputs come back, and the code of the process is the command's."""
    done = ctr.run("sh", "-c", "echo out; echo err >&2; exit 7")
    assert (done.code, done.out, done.err) == (7, "out", "err")
    assert ctr.run("true").code == 0
    assert ctr.ok("container", "ls", "-q") == ""


def test_program_that_is_missing(ctr):
    """A program that is not there is an error that names it, and nothing is left."""
    done = ctr.run("/no/such/program")
    assert done.code != 0
    assert "/no/such/program" in done.err
    assert ctr.tasks() == {}


def test_input(ctr):
    """Standard input reaches the process, and its end too."""
    process = ctr.start("run", "--rm", f"{IMAGE}:latest", "box", "cat")
    process.stdin.write(b"one\n")
    process.stdin.flush()
    assert process.stdout.readline() == b"one\n"
    out, _ = process.communicate(b"two\n", 30)
    assert (process.returncode, out) == (0, b"two\n")


def test_a_lot_of_output(ctr):
    """Megabytes arrive whole."""
    done = ctr.run("sh", "-c", "yes abcdefghi | head -c 4000000")
    assert (done.code, len(done.stdout)) == (0, 4_000_000)
    assert done.stdout == b"abcdefghi\n" * 400_000


def test_terminal(ctr):
    """A terminal is one inside, has a size, and passes what is typed and the code."""
    words = ("run", "--rm", "-t", f"{IMAGE}:latest", "box", "sh")
    with ctr.terminal(*words, rows=31, columns=97) as terminal:
        terminal.expect(b"# ")
        terminal.send(b"test -t 0; echo is-$?\r")
        terminal.expect(b"is-0")
        _has_size(terminal, 31, 97)
        terminal.resize(20, 70)
        _has_size(terminal, 20, 70)
        terminal.send(b"exit 9\r")
        assert terminal.wait() == 9


def _has_size(terminal, rows: int, columns: int) -> None:
    """Wait until the shell's terminal has a size."""
    for _ in range(50):
        terminal.send(b'stty size; echo en""d\r')
        if b"%d %d" % (rows, columns) in terminal.expect(b"\nend"):
            return
        time.sleep(0.1)
    raise AssertionError("the size is another")


def test_exec(ctr):
    """An added process shares the container; its code is the command's; more than one at once."""
    name = ctr.up("sh", "-c", "echo kept >/tmp/file; sleep 3600")
    ctr.until(lambda: ctr.exec(name, "cat", "/tmp/file").out == "kept")
    assert ctr.exec(name, "sh", "-c", "exit 5").code == 5
    failed = ctr.exec(name, "/no/such/program")
    assert failed.code != 0
    assert "/no/such/program" in failed.err
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        codes = pool.map(
            lambda n: (
                ctr("task", "exec", "--exec-id", f"many-{n}", name, "sh", "-c", f"exit {n}").code
            ),
            range(4),
        )
        assert list(codes) == [0, 1, 2, 3]
    assert ctr.tasks() == {name: "RUNNING"}


def test_exec_with_a_terminal(ctr):
    """An added process can have a terminal."""
    name = ctr.up()
    words = ("task", "exec", "-t", "--exec-id", "terminal", name, "sh")
    with ctr.terminal(*words, rows=33, columns=99) as terminal:
        terminal.expect(b"# ")
        _has_size(terminal, 33, 99)
        terminal.send(b"exit 4\r")
        assert terminal.wait() == 4


def test_kill(ctr):
    """Signals arrive: one that is handled, and one that ends it; a task is deleted by its code."""
    name = ctr.up("sh", "-c", 'trap "echo usr1 >/tmp/got" USR1; while :; do sleep 0.1; done')
    ctr.until(lambda: "trap" in ctr.sh(name, "cat /proc/1/cmdline"))
    ctr.ok("task", "kill", "-s", "SIGUSR1", name)
    ctr.until(lambda: ctr.exec(name, "cat", "/tmp/got").out == "usr1")
    ctr.ok("task", "kill", "-s", "SIGKILL", name)
    ctr.until(lambda: ctr.tasks()[name] == "STOPPED")
    assert ctr.reap(name) == 137
    assert ctr.tasks() == {}
    assert ctr("task", "kill", name).code != 0


def test_delete_of_what_runs_is_refused(ctr):
    """A running task cannot be deleted without force."""
    name = ctr.up()
    done = ctr("task", "rm", name)
    assert done.code != 0
    assert ctr.tasks() == {name: "RUNNING"}
    ctr("task", "rm", "-f", name)
    assert ctr.tasks() == {}


def test_pause_and_resume(ctr, directory):
    """What is paused does not one step, says so, and goes on afterwards."""
    ticks = f"{directory}/ticks"
    words = ("sh", "-c", "while :; do echo >>/host/ticks; sleep 0.05; done")
    name = ctr.up(
        *words, flags=("--mount", f"type=bind,src={directory},dst=/host,options=rbind:rw")
    )
    ctr.until(lambda: os.path.exists(ticks) and os.path.getsize(ticks) > 2)
    ctr.ok("task", "pause", name)
    assert ctr.tasks() == {name: "PAUSED"}
    before = os.path.getsize(ticks)
    time.sleep(0.5)
    assert os.path.getsize(ticks) == before
    ctr.ok("task", "resume", name)
    assert ctr.tasks() == {name: "RUNNING"}
    ctr.until(lambda: os.path.getsize(ticks) > before)


def test_checkpoint_is_refused(ctr):
    """There are no checkpoints: an error, and the container runs on."""
    name = ctr.up()
    done = ctr("container", "checkpoint", "--task", name, "localhost/checkpoint")
    assert done.code != 0
    assert ctr.tasks() == {name: "RUNNING"}
    assert ctr.sh(name, "echo well") == "well"


def test_metrics(ctr):
    """The figures of a task count its work and its memory."""
    name = ctr.up("sh", "-c", "dd if=/dev/zero of=/dev/shm/x bs=9M count=1; while :; do :; done")

    def busy() -> bool:
        rows = [line.split() for line in ctr.ok("task", "metrics", name).splitlines()]
        found = {row[0]: row[1] for row in rows if len(row) == 2 and row[1].isdigit()}
        memory = found.get("memory.usage_in_bytes", found.get("memory.current", "0"))
        processor = found.get("cpuacct.usage", found.get("cpu.usage_usec", "0"))
        return int(memory) > 8_000_000 and int(processor) > 100_000

    ctr.until(busy)


def test_processes_of_a_task(ctr):
    """The pids of a task are processes of the host."""
    name = ctr.up("sh", "-c", "sleep 3600 & wait")
    rows = ctr.ok("task", "ps", name).splitlines()
    assert rows[0].split()[0] == "PID"
    pids = [int(row.split()[0]) for row in rows[1:]]
    assert pids
    assert all(_runs(pid) for pid in pids)


def _runs(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_files_survive_within_a_container(ctr):
    """Environment, working directory, read-only root and bind mounts are as asked."""
    with_mounts = (
        "--env",
        "WORD=given",
        "--cwd",
        "/var",
        "--read-only",
        "--mount",
        f"type=bind,src={ctr.place.directory},dst=/host,options=rbind:ro",
    )
    done = ctr.run(
        "sh", "-c", "echo $WORD; pwd; touch /x 2>/dev/null || echo shut; "
        "touch /host/x 2>/dev/null || echo shut; ls /host/containerd.log", flags=with_mounts,
    )  # fmt: skip
    assert done.out.split() == ["given", "/var", "shut", "shut", "/host/containerd.log"]


@pytest.mark.parametrize("snapshotter", ["overlayfs", "native"])
def test_snapshotters(ctr, snapshotter):
    """A root is a container's own and writable, on either snapshotter."""
    ctr.snapshotter = snapshotter
    words = "cat /etc/new 2>/dev/null; echo new >/etc/new; rm /etc/group; cat /etc/new; ls /etc"
    for _ in range(2):
        assert ctr.run("sh", "-c", words).out.split() == ["new", "new", "passwd"]


def test_network_of_the_host(ctr):
    """--net-host is the host's network with runc; we refuse, and nothing is left of the attempt."""
    done = ctr.run("ip", "-o", "link", flags=("--net-host",))
    if differs(ctr.runtime, "host-network"):
        assert done.code != 0
        assert "network" in done.err
        assert ctr.tasks() == {}
    else:
        assert "cni-test" in done.out


def test_privileged(ctr):
    """All devices of the host, as nodes: a container has terminals of its own none the less."""
    words = "readlink /dev/ptmx; stat -c %t:%T /dev/kmsg /dev/null; grep CapEff /proc/self/status"
    done = ctr.run("sh", "-c", words, flags=("--privileged",))
    assert done.code == 0, done.err
    link, kmsg, null, _, capabilities = done.out.split()
    assert (link, kmsg, null) == ("pts/ptmx", "1:b", "1:3")
    assert int(capabilities, 16) >> 21 & 1


def test_privileged_with_dev_of_the_host(ctr):
    """Nothing is made in the host's own /dev."""
    before = sorted(os.listdir("/dev"))
    with_dev = ("--privileged", "--mount", "type=bind,src=/dev,dst=/dev,options=rbind:rw")
    done = ctr.run("stat", "-c", "%t:%T", "/dev/kmsg", flags=with_dev)
    assert (done.code, done.out, done.err) == (0, "1:b", "")
    assert sorted(os.listdir("/dev")) == before


def test_limits(ctr):
    """A limit of memory and of processor time is one inside."""
    done = ctr.run("sh", "-c", "exit 0", flags=("--memory-limit", "33554432", "--cpus", "0.5"))
    assert done.code == 0
    words = "dd if=/dev/zero of=/dev/null bs=50M count=1 && echo survived"
    done = ctr.run("sh", "-c", words, flags=("--memory-limit", "20971520"))
    assert done.code == 137
    assert "survived" not in done.out


@pytest.mark.parametrize("times", [5, pytest.param(50, marks=pytest.mark.soak)])
def test_one_after_another(ctr, times):
    """Runs in a row leave nothing (fixtures count)."""
    for number in range(times):
        done = ctr.run("sh", "-c", f"echo {number}; exit {number % 3}", name=f"row-{number}")
        assert (done.code, done.out) == (number % 3, str(number))


@pytest.mark.parametrize("times", [30, pytest.param(1000, marks=pytest.mark.soak)])
def test_many_are_added(ctr, times):
    """Processes that come and go leave the shim no descriptor, no thread and little memory."""
    ctr.up(name="box")
    for _ in range(10):  # the first ones load what all need
        assert ctr.exec("box", "true").code == 0
    [shim] = [pid for pid in processes("containerd-shim") if "-id box" in leaks.describe(pid)]
    before = _held(shim)
    for number in range(times):
        done = ctr.exec("box", "sh", "-c", f"exit {number % 3}")
        assert done.code == number % 3
    spare = 8 if ctr.runtime == "runc" else 0  # of Go's own threads

    def as_before():
        after = _held(shim)
        return all(a <= b + spare for a, b in zip(after[:2], before[:2], strict=True))

    until(as_before, 10, "what was held before")
    assert _held(shim)[2] <= before[2] + (6 << 20)


def _held(pid: int) -> tuple[int, int, int]:
    """Descriptors, threads, and bytes of memory that a process has to itself."""
    private = 0
    for line in pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="utf-8").splitlines():
        if line.startswith("Private_"):
            private += int(line.split()[1]) << 10
    return len(os.listdir(f"/proc/{pid}/fd")), len(os.listdir(f"/proc/{pid}/task")), private


def test_ten_at_once(ctr):
    """Ten containers start, run beside each other and end."""
    with concurrent.futures.ThreadPoolExecutor(10) as pool:
        done = list(
            pool.map(
                lambda n: ctr.run("sh", "-c", f"echo {n}; exit {n}", name=f"crowd-{n}"), range(10)
            )
        )
    assert [(d.code, d.out) for d in done] == [(n, str(n)) for n in range(10)]


def test_restarted_daemon(ctr, containerd, directory):
    """Tasks outlive containerd: they run, take processes, and give the right code after it."""
    ends = "while [ ! -e /tmp/go ]; do sleep 0.05; done; exit 41"
    for name in ("one", "two"):
        ctr.up("sh", "-c", ends, name=name)
    waits = "while [ ! -e /host/go ]; do sleep 0.05; done; touch /host/gone; exit 42"
    mount = ("--mount", f"type=bind,src={directory},dst=/host,options=rbind:rw")
    ctr.up("sh", "-c", waits, name="late", flags=mount)
    ctr.sh("one", "echo before >/tmp/note")
    containerd.end(kill=True)
    pathlib.Path(directory, "go").touch()  # so "late" ends while no daemon is there
    ctr.until(lambda: os.path.exists(f"{directory}/gone"))
    time.sleep(0.5)
    containerd.start()
    ctr.until(lambda: ctr.tasks()["late"] == "STOPPED", timeout=5)
    assert ctr.tasks() == {"one": "RUNNING", "two": "RUNNING", "late": "STOPPED"}
    assert ctr.reap("late") == 42
    assert ctr.sh("one", "cat /tmp/note") == "before"
    containerd.restart()
    for name in ("one", "two"):
        ctr.sh(name, "touch /tmp/go")
        ctr.until(lambda name=name: ctr.tasks()[name] == "STOPPED")
        assert ctr.reap(name) == 41
        ctr.ok("container", "rm", name)
    ctr.ok("container", "rm", "late")
