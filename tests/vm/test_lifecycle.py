"""Containers over their life: detached, listed, followed, entered, stopped, removed; signals."""

import os
import signal
import subprocess
import time

import pytest

from support.vm import IMAGE


def _detached(kata, *command: str, options: tuple[str, ...] = (), name: str = "box") -> str:
    return kata.ok("run", "-d", "--name", name, *options, IMAGE, *command)


def test_a_detached_life(kata):
    """run -d, ps, logs, wait, inspect, ps -a, rm tell one story."""
    script = "echo out; echo err >&2; sleep 2; exit 9"
    identifier = _detached(kata, "sh", "-c", script, options=("-l", "a=b"))
    assert len(identifier) == 64
    [row] = kata.json("ps", "--format", "json")
    assert (row["id"], row["name"], row["status"]) == (identifier, "box", "running")
    assert kata.ok("ps", "-q", "--no-trunc") == identifier
    assert kata.ok("wait", "box") == "9"
    result = kata("logs", "box")
    assert (result.stdout, result.stderr) == (b"out\n", b"err\n")
    assert kata.ok("ps", "-q") == ""
    item = kata.inspect("box")
    assert (item["status"], item["exit_code"]) == ("stopped", 9)
    assert kata.ok("rm", "box") == "box"
    assert kata.ok("ps", "-aq") == ""
    assert kata.left() == []


def test_logs_follow(kata):
    """logs -f prints what comes until the end, and ends."""
    script = "for i in 1 2 3 4; do echo $i; sleep 0.5; done"
    _detached(kata, "sh", "-c", script)
    assert kata("logs", "-f", "box").stdout == b"1\n2\n3\n4\n"
    assert kata.ok("logs", "-n", "2", "box") == "3\n4"
    kata.ok("rm", "box")


def test_exec(kata):
    """exec runs in the same namespaces, with its own streams, environment, user and code."""
    _detached(kata, "sh", "-c", "echo mark > /tmp/mark; sleep 1000")
    assert kata.ok("exec", "box", "sh", "-c", "sleep 0.3; cat /tmp/mark") == "mark"
    assert kata("exec", "-i", "box", "cat", input=b"in\0").stdout == b"in\0"
    result = kata("exec", "-e", "A=1", "-w", "/tmp", "-u", "ann", "box", "sh", "-c",
                  "echo $A $PWD $(id -u); echo e >&2; exit 6")  # fmt: skip
    assert (result.code, result.out, result.err) == (6, "1 /tmp 1000", "e")
    assert kata("exec", "box", "nosuch").code == 127
    assert "sleep 1000" in kata.ok("exec", "box", "ps", "-o", "args")
    script = "grep -E 'CapEff|Seccomp:' /proc/self/status"
    confined = kata.ok("exec", "box", "sh", "-c", script).split()
    assert confined == ["CapEff:", "00000000a80425fb", "Seccomp:", "2"]
    kata.ok("rm", "-f", "box")


def test_processes_are_scheduled_as_usual_and_share_a_group(kata):
    """The agent gives way to them, which none inherits; an added one is born in the group."""
    _detached(kata, "sleep", "1000")
    policies = "cut -d' ' -f41 /proc/1/stat /proc/self/stat"  # proc(5): 0 is SCHED_OTHER
    assert kata.ok("exec", "box", "sh", "-c", policies).split() == ["0", "0"]
    groups = kata.ok("exec", "box", "cat", "/proc/1/cgroup", "/proc/self/cgroup").split()
    assert len(groups) == 2
    assert len(set(groups)) == 1
    kata.ok("rm", "-f", "box")


def test_a_failed_exec_leaves_the_supervisor_nothing(kata):
    """Its streams are opened along with it; when it does not start, all of them are given up."""
    _detached(kata, "sleep", "1000")
    supervisor = kata.inspect("box")["pid"]

    def held():
        return [len(os.listdir(f"/proc/{supervisor}/{kind}")) for kind in ("fd", "task")]

    kata("exec", "-i", "box", "nosuch", input=b"")
    time.sleep(0.5)
    before = held()
    for _ in range(3):
        assert kata("exec", "-i", "box", "nosuch", input=b"").code == 127
    time.sleep(0.5)
    assert held() == before
    kata.ok("rm", "-f", "box")


def test_exec_with_a_terminal(kata):
    """exec -it gives a terminal of the caller's size."""
    _detached(kata, "sleep", "1000")
    with kata.terminal("exec", "-it", "box", "sh", rows=30, columns=90) as terminal:
        terminal.expect(b"# ")
        terminal.send(b"tty; stty size\n")
        terminal.expect(b"/dev/pts/")
        terminal.expect(b"30 90")
        terminal.send(b"exit 3\n")
        assert terminal.wait() == 3
    kata.ok("rm", "-f", "box")


def test_exec_of_what_does_not_run(kata):
    """exec in a container that has ended, or never was, is refused in words."""
    kata.ok("run", "-d", "--name", "box", IMAGE, "true")
    kata.ok("wait", "box")
    result = kata("exec", "box", "true")
    assert result.code not in (0, 127)
    assert "not running" in result.err
    assert "no such container" in kata("exec", "nosuch", "true").err.lower()
    kata.ok("rm", "box")


@pytest.mark.parametrize("name", ["TERM", "INT", "HUP", "USR1", "QUIT"])
def test_signals_reach_the_process(kata, name):
    """A signal to ``kata run`` is delivered to the process inside, which answers it."""
    script = f"trap 'echo got; exit 4' {name}; echo ready; while :; do sleep 0.1; done"
    process = kata.start("run", "--rm", IMAGE, "sh", "-c", script)
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(getattr(signal, f"SIG{name}"))
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (4, b"got\n", b"")


def test_a_signal_nobody_catches(kata):
    """A process that does not catch SIGTERM, and is not PID 1, ends with 143."""
    process = kata.start("run", "--rm", "--init", IMAGE, "sh", "-c", "echo ready; exec sleep 1000")
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    assert process.returncode == 143


def test_stop_asks_and_then_ends(kata):
    """stop sends the stop signal, waits, and kills what does not listen."""
    _detached(kata, "sh", "-c", "trap 'exit 5' TERM; while :; do sleep 0.1; done", name="polite")
    _detached(kata, "sh", "-c", "trap '' TERM; while :; do sleep 0.1; done", name="rude")
    time.sleep(1)
    kata.ok("stop", "-t", "20", "polite")
    kata.ok("stop", "-t", "1", "rude")
    assert kata.inspect("polite")["exit_code"] == 5
    assert kata.inspect("rude")["exit_code"] == 137
    kata.ok("rm", "polite", "rude")


def test_kill(kata):
    """kill sends any signal, KILL if none is named."""
    _detached(kata, "sh", "-c", "trap 'echo usr' USR1; while :; do sleep 0.1; done")
    time.sleep(0.5)
    kata.ok("kill", "-s", "USR1", "box")
    deadline = time.monotonic() + 20
    while "usr" not in kata.ok("logs", "box") and time.monotonic() < deadline:
        time.sleep(0.1)
    assert kata.ok("logs", "box") == "usr"
    kata.ok("kill", "box")
    assert kata.ok("wait", "box") == "137"
    kata.ok("rm", "box")


def test_rm_wants_force_for_what_runs(kata):
    """rm refuses a running container in words; rm -f ends it and leaves nothing."""
    _detached(kata, "sleep", "1000")
    result = kata("rm", "box")
    assert result.code == 1
    assert "-f" in result.err
    kata.ok("rm", "-f", "box")
    assert kata.left() == []
    assert kata("rm", "-f", "nosuch").code == 0
    assert kata("rm", "nosuch").code == 1


def test_the_client_may_go(kata):
    """A client that is killed takes nothing with it: the container runs on, and ends by itself."""
    process = kata.start("run", "--name", "box", IMAGE, "sh", "-c", "echo up; sleep 3; exit 8")
    assert process.stdout.readline() == b"up\n"
    process.kill()
    process.communicate()
    assert kata.ok("wait", "box", timeout=30) == "8"
    kata.ok("rm", "box")


def test_two_of_one_name(kata):
    """A name in use is refused, with its holder, before anything is made."""
    _detached(kata, "sleep", "1000")
    result = kata("run", "--rm", "--name", "box", IMAGE, "true")
    assert result.code == 125
    assert 'the name "box" is already in use' in result.err
    assert len(kata.json("ps", "--format", "json")) == 1
    kata.ok("rm", "-f", "box")


def test_two_of_one_name_at_once(kata):
    """Of two runs with one name started together, one runs and the other is refused."""
    argv = ("run", "--rm", "--name", "one", IMAGE, "sleep", "1000")
    both = [kata.start(*argv) for _ in range(2)]
    deadline = time.monotonic() + 60
    while not (refused := [p for p in both if p.poll() is not None]):
        assert time.monotonic() < deadline, "both run"
        time.sleep(0.05)
    kata.wait_until("one", "running")
    kata.ok("rm", "-f", "one")
    errors = {p: p.communicate(timeout=60)[1] for p in both}
    assert [p.returncode for p in refused] == [125]
    assert b'the name "one" is already in use' in errors[refused[0]]
    assert sorted(p.returncode for p in both) == [125, 137]
    assert kata.left() == []


def test_a_name_is_taken_before_a_template_is_made(kata, directory):
    """Who needs seconds to begin has its name from the first of them; rm -f takes all of it."""
    kata.configure(f'[factory]\ntemplate_path = "{directory}/templates"\n')
    argv = ("run", "--rm", "--name", "one", IMAGE, "sleep", "1000")
    first = kata.start(*argv)
    assert b"making a template" in first.stderr.readline()
    assert os.listdir(f"{kata.state}/names") == ["one"]
    second = kata(*argv)
    assert (second.code, 'the name "one" is already in use' in second.err) == (125, True)
    kata.ok("rm", "-f", "one")
    assert first.wait(30) != 0
    first.communicate()
    assert kata.left() == []


def test_timing_adds_up(kata):
    """--timing names every phase, and they sum to the total within 5 %."""
    result = kata("run", "--rm", "--timing", "--format", "json", IMAGE, "echo", "hello")
    assert result.stdout == b"hello\n"
    import json

    report = json.loads(result.err)
    phases = sum(phase["ms"] for phase in report["phases"])
    assert phases == pytest.approx(report["total_ms"], rel=0.05)


def test_detached_processes_hold_no_pipe(kata):
    """run -d returns, and whoever reads its output reads the end: nothing keeps it open."""
    out = subprocess.run(
        kata.argv("run", "-d", "--name", "box", IMAGE, "sleep", "1000"), env=kata.env, check=True,
        capture_output=True, stdin=subprocess.DEVNULL, timeout=60,
    )  # fmt: skip
    assert len(out.stdout.strip()) == 64
    kata.ok("rm", "-f", "box")


@pytest.mark.parametrize("name", ["TERM", "HUP", "INT"])
def test_a_signal_before_there_is_a_process(kata, name):
    """It ends what was begun, with the exit code of such an end, and leaves nothing."""
    process = kata.start("run", "--no-template", "--name", "box", IMAGE, "sleep", "1000")
    time.sleep(0.5)
    process.send_signal(getattr(signal, f"SIG{name}"))
    process.communicate(timeout=60)
    assert process.returncode == 128 + getattr(signal, f"SIG{name}")
    assert kata.left() == []


def test_a_machine_that_stands_still_is_stopped(kata):
    """stop waits as long as it was told, asks in vain, and ends the machine."""
    _detached(kata, "sleep", "1000", name="box")
    facts = kata.json("inspect", "box")
    os.kill(_find(facts, "vmm_pid"), signal.SIGSTOP)
    kata.ok("stop", "-t", "1", "box")
    assert kata.ok("wait", "box") == "137"
    kata.ok("rm", "box")


def test_a_container_of_which_nothing_is_known_any_more(kata):
    """rm -f ends one that runs and cannot be read."""
    _detached(kata, "sleep", "1000", name="box")
    facts = kata.json("inspect", "box")
    with open(f"{kata.state}/{_find(facts, 'id')}/state.json", "w", encoding="utf-8") as file:
        file.write('{"id":')
    assert "cannot be read" in kata("stop", "box").err
    kata.ok("rm", "-f", "box")
    assert kata.left() == []


def _find(facts, name: str):
    """The first value of that name in what ``inspect`` says."""
    for one in facts if isinstance(facts, list) else facts.values():
        if isinstance(one, dict | list) and (found := _find(one, name)):
            return found
    return facts.get(name) if isinstance(facts, dict) else None
