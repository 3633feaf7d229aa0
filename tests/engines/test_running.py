"""Running a container to its end: streams, terminals, exit codes, floods."""

import hashlib
import time

import pytest

from support.engines import IMAGE

RUN = ("run", "--rm", "--network=none")


def test_output_of_both_kinds_and_the_exit_code(engine):
    """What a container writes arrives on the stream it was written to; its code is the engine's."""
    result = engine(*RUN, IMAGE, "sh", "-c", "echo out; echo err >&2; exit 3")
    assert (result.out, result.err, result.code) == ("out", "err", 3)


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("/no/such/program",), 127),
        (("/etc/passwd",), 126),
        (("sh", "-c", "sleep 9 & kill -9 $!; wait $!"), 137),
    ],
    ids=["absent", "not a program", "killed"],
)
def test_exit_codes(engine, words, code):
    """What cannot be started is 127 or 126; a signal is 128 and its number."""
    result = engine(*RUN, IMAGE, *words)
    assert result.code == code, result.err


def test_errors_of_the_engine_are_125(engine):
    """What the engine itself refuses is 125, and the runtime is not asked."""
    assert engine(*RUN, "--no-such-flag", IMAGE, "true").code == 125


def test_bytes_pass_unharmed(engine):
    """A megabyte of any bytes goes in and comes out the same; the end of input arrives."""
    data = bytes(range(256)) * 4096
    result = engine(*RUN, "-i", IMAGE, "sh", "-c", "tee /dev/stderr | sha256sum", input=data)
    assert result.out.split()[0] == hashlib.sha256(data).hexdigest()
    assert result.stderr == data


def test_terminal(engine):
    """With -t there is a terminal of the caller's size that follows it, and both ends type."""
    with engine.terminal(*RUN, "-it", IMAGE, "sh", rows=30, columns=100) as terminal:
        terminal.expect(b"# ")
        terminal.send(b"tty; echo =$((40+2))\r")
        terminal.expect(b"/dev/pts/0")
        terminal.expect(b"=42")
        for rows, columns in ((30, 100), (41, 121)):
            terminal.resize(rows, columns)
            terminal.size(rows, columns)
        terminal.send(b"sleep 60\r")
        time.sleep(0.3)
        terminal.send(b"\x03")
        terminal.expect(b"# ")
        terminal.send(b"exit 7\r")
        assert terminal.wait() == 7


def test_detach_keys_and_attach(engine):
    """The detach keys leave the container running; attach finds it; its end ends the attach."""
    keys = "--detach-keys=ctrl-x,x"
    command = ("run", "-it", "--name", "box", "--network=none", keys, IMAGE, "sh")
    with engine.terminal(*command) as terminal:
        terminal.expect(b"# ")
        terminal.send(b"x=kept\r")
        terminal.expect(b"# ")
        terminal.send(b"\x18")
        time.sleep(0.3)  # keys that arrive together are not looked at
        terminal.send(b"x")
        terminal.wait()
    assert engine.state("box")["Status"] == "running"
    with engine.terminal("attach", keys, "box") as terminal:
        time.sleep(0.5)
        terminal.send(b"echo still-$x\r")
        terminal.expect(b"still-kept")
        terminal.send(b"exit 5\r")
        assert terminal.wait() in (5, 0 if engine.kind == "podman" else 5)
    assert engine.until_status("box", "exited")["ExitCode"] == 5


def test_start_attached_a_container_made_before(engine):
    """create, then start -a: output and exit code, as often as one likes."""
    words = ("sh", "-c", "echo $RANDOM; exit 4")
    engine.ok("create", "--name", "box", "--network=none", IMAGE, *words)
    assert engine.state("box")["Status"] == "created"
    for _ in range(2):
        result = engine("start", "-a", "box")
        assert (result.code, result.out.isdigit()) == (4, True)
    assert len(engine.ok("logs", "box").split()) == 2


def test_start_attached_with_input(engine):
    """start -ai hands input to a container that was made with -i."""
    engine.ok("create", "-i", "--name", "box", "--network=none", IMAGE, "cat")
    assert engine.ok("start", "-ai", "box", input=b"words\n") == "words"


def test_logs(engine):
    """Logs keep what was written; -f follows until the end; --tail counts from it."""
    waiting = "while [ ! -e /go ]; do sleep 0.1; done"
    script = f"for i in 1 2 3; do echo line$i; done; {waiting}; echo last"
    name = engine.up("--network=none", IMAGE, "sh", "-c", script)
    engine.until_logged(name, "line3")
    follower = engine.start("logs", "-f", name)
    assert engine.ok("logs", "--tail=1", name) == "line3"
    engine.sh(name, "touch /go")
    out, _ = follower.communicate(timeout=60)
    assert out.decode().split() == ["line1", "line2", "line3", "last"]
    engine.until_status(name, "exited")


def test_flood(engine):
    """200 MB on standard output arrive whole, without logs, and the container ends."""
    size = 200 << 20
    driver = "--log-driver=none"
    process = engine.start(*RUN, driver, IMAGE, "dd", "if=/dev/zero", "bs=1M", "count=200")
    total = 0
    while piece := process.stdout.read(1 << 20):
        total += len(piece)
    process.communicate(timeout=60)
    assert (total, process.returncode) == (size, 0)


def test_a_thousand_processes(engine):
    """A container may start a thousand processes, and its end takes them along."""
    many = "i=0; while [ $i -lt 1000 ]; do sleep 600 & i=$((i+1)); done"
    script = f"{many}; ls -d /proc/[0-9]* | wc -l"
    result = engine(*RUN, "--pids-limit=2000", IMAGE, "sh", "-c", script, timeout=180)
    assert result.code == 0, result.err
    assert int(result.out) >= 1001
