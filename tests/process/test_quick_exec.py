"""``kata exec`` in the plain case: what it loads, and that it is the same as the long way.

The one rule: the program itself is run, against a supervisor that answers on a real socket.
"""

import os
import signal
import subprocess
import threading

import pytest

from kata.cli.quick import exit_code_of, parse
from kata.cli.runtime.quick import Plain
from kata.errors import CommandNotFound, GuestError, NotFound, WrongState
from kata.runtime.control import ControlServer
from kata.runtime.control_calls import ExecResponse, ExitResponse
from kata.runtime.store import PAUSED, RUNNING, ContainerState, Store, new_id
from kata.wire.calls import Empty
from kata.wire.ttrpc import Connection
from support.host import wait_until_caught
from support.source import CHECKOUT, SOURCE

PYTHON = "/usr/bin/python3"
LOADED = {
    "__future__", "_json", "_socket", "fcntl", "gc", "select",
    "kata", "kata.cli", "kata.cli.forwarded", "kata.cli.quick", "kata.cli.runtime",
    "kata.cli.runtime.quick", "kata.wire", "kata.wire.quickjson",
}  # fmt: skip
RUN = """
import sys
before = set(sys.modules)
sys.path.insert(0, sys.argv[1])
from kata.cli.quick import run
code = run(sys.argv[2:])
print(*sorted(set(sys.modules) - before), file=sys.stderr)
sys.exit(code)
"""


class Box:
    """A container on disk, and a supervisor that knows how its processes end."""

    def __init__(self, root, status=RUNNING):
        self.root, self.execs, self.signals = str(root), [], []
        self.failure, self.end = None, ExitResponse(exit_code=0, finished_ns=1 << 60)
        self.ending, self.signalled = threading.Event(), threading.Event()
        self.ending.set()
        store = Store(self.root)
        self.state = ContainerState(id=new_id(), name="box", status=status, pid=4711)
        self._lock = store.create(self.state)
        self._server = ControlServer({
            "Exec": self._exec, "Wait": self._wait, "Signal": self._signal,
        })  # fmt: skip
        self._server.listen(store.directory(self.state.id))

    def _exec(self, request, fds):
        self.execs.append(request)
        given = dict(zip(request.streams, fds, strict=True))
        try:
            if self.failure:
                raise self.failure
            if 0 in given:
                os.write(given[1], os.read(given[0], 100).upper())
            os.write(given[1], b"out\n")
            os.write(given[2], b"err\n")
        finally:
            for fd in fds:
                os.close(fd)
        return ExecResponse(exec_id="exec-1")

    def _wait(self, request, _fds):
        assert (request.container_id, request.exec_id) == (self.state.id, "exec-1")
        self.ending.wait(30)
        if isinstance(self.end, Exception):
            raise self.end
        return self.end

    def _signal(self, request, _fds):
        assert request.exec_id == "exec-1"
        self.signals.append(request.signal)
        self.signalled.set()
        return Empty()

    def close(self):
        """No more answers."""
        self._server.close()
        os.close(self._lock)

    def start(self, *words, **options):
        """The program itself, started."""
        return subprocess.Popen(
            [f"{CHECKOUT}/bin/kata", "--root", self.root, "exec", *words], text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options,
        )  # fmt: skip

    def run(self, *words, text=""):
        """Its exit code, output and errors."""
        process = self.start(*words, stdin=subprocess.PIPE)
        out, errors = process.communicate(text, timeout=60)
        return process.returncode, out, errors


@pytest.fixture
def box(tmp_path):
    """A container that runs."""
    made = Box(tmp_path)
    yield made
    made.close()


def test_it_loads_next_to_nothing(box):
    """Half the time of a command was that of its imports."""
    done = subprocess.run(
        [PYTHON, "-I", "-S", "-c", RUN, SOURCE, "--root", box.root, "exec", "box", "true"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert set(done.stderr.splitlines()[-1].split()) <= LOADED


@pytest.mark.parametrize("options", [(), ("-i",), ("--interactive",)])
def test_words_and_streams_arrive(options, box):
    """Every word as it is, however long; stdin only for whoever asks for it."""
    words = ["echo", "", "-i", "--", "ä", "x" * 300]
    code, out, errors = box.run(*options, "box", *words, text="in\n")
    assert (code, out, errors) == (0, "IN\nout\n" if options else "out\n", "err\n")
    [request] = box.execs
    assert request.arguments == words
    assert request.streams == ([0, 1, 2] if options else [1, 2])
    assert request.container_id == box.state.id
    assert (request.environment, request.cwd, request.user, request.terminal) == ([], "", "", False)


def test_the_long_way_asks_for_the_same(box):
    """An option that is not plain changes the way, not the request."""
    assert box.run("box", "echo", "a") == box.run("-i=false", "box", "echo", "a")
    quick, whole = box.execs
    assert quick.encode() == whole.encode()


@pytest.mark.parametrize("code", [0, 1, 127, 137, 255])
def test_the_exit_code_is_that_of_the_process(code, box):
    """All of them fit."""
    box.end = ExitResponse(exit_code=code, signal=9 if code == 137 else 0, finished_ns=1 << 60)
    assert box.run("box", "sh")[0] == code


def test_output_that_was_not_written_is_told(box):
    """It is the long way's words."""
    box.end = ExitResponse(output_error="no space left")
    code, _, errors = box.run("box", "sh")
    assert (code, errors) == (125, "err\nkata: cannot write the output: no space left\n")


def test_a_process_that_was_lost_with_its_machine(box):
    """137, and why, on both ways."""
    box.end = ExitResponse(exit_code=137, signal=9, error="the virtual machine ended: QEMU died")
    said = (137, "out\n", "err\nkata: the virtual machine ended: QEMU died\n")
    assert box.run("box", "sh") == said
    assert box.run("-i=false", "box", "sh") == said


@pytest.mark.parametrize(("failure", "code", "words"), [
    (CommandNotFound('exec: "nope": no such file'), 127, 'exec: "nope": no such file'),
    (GuestError('chdir to cwd ("/x") set in config.json failed', why="no such file"), 125,
     "the working directory of the image: no such file"),
])  # fmt: skip
def test_a_process_that_does_not_start_is_asked_for_once(failure, code, words, box):
    """The error comes along, in the words of the command."""
    box.failure = failure
    found, out, errors = box.run("box", "nope")
    assert (found, out) == (code, "")
    assert words in errors
    assert len(box.execs) == 1


@pytest.mark.parametrize("end", [NotFound("no such process"), WrongState("it is gone")])
def test_a_wait_that_fails_ends_as_the_long_way_does(end, box):
    """The container was ended or removed while the process ran."""
    box.end = end
    quick = box.run("box", "sh")
    assert quick[0]
    assert quick == box.run("-i=false", "box", "sh")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1])
def test_signals_are_passed_on(number, box):
    """The process decides what becomes of it; the command ends when it does."""
    box.ending.clear()
    process = box.start("box", "sh", stdin=subprocess.DEVNULL)
    assert process.stdout.readline() == "out\n"
    wait_until_caught(process.pid, number)
    process.send_signal(number)
    assert box.signalled.wait(30)
    box.end = ExitResponse(exit_code=3)
    box.ending.set()
    assert process.wait(30) == 3
    process.communicate()
    assert box.signals == [number]


def test_a_paused_container_goes_the_long_way(tmp_path):
    """It says what is wrong, and nothing is asked for."""
    made = Box(tmp_path, PAUSED)
    try:
        code, _, errors = made.run("box", "true")
    finally:
        made.close()
    assert code == 125
    assert 'container "box" is paused' in errors
    assert made.execs == []


@pytest.mark.parametrize("words", [
    ("--debug", "exec", "box", "true"), ("exec", "-t", "box", "true"), ("exec", "box"),
    ("exec", "box", "--"), ("exec", "-e", "A=1", "box", "true"), ("exec", "a/b", "true"),
    ("exec", ".", "true"), ("run", "box", "exec"), ("exec", "-it", "box", "sh"),
])  # fmt: skip
def test_what_is_not_plain(words):
    """It is left to the verb's own module."""
    with pytest.raises((Plain, IndexError)):
        parse(words)


@pytest.mark.parametrize("words", [
    ("exec", "box", "a", "-t"), ("exec", "box", "--", "a", "-t"),
])  # fmt: skip
def test_what_is_plain(words):
    """What follows the container is the command's own; one "--" may stand before it."""
    assert parse(("--root=/r", "--data-root", "/d", *words)) == ("/r", "box", ["a", "-t"], False)


@pytest.mark.parametrize("answer", [
    ExitResponse(), ExitResponse(exit_code=200, signal=72, finished_ns=1 << 62),
])  # fmt: skip
def test_exit_codes_are_read_as_the_codec_writes_them(answer):
    """The few bytes read by hand are those of the tables."""
    assert exit_code_of(Connection.respond(3, answer.encode())[10:]) == answer.exit_code


def test_what_says_more_is_not_read_by_hand():
    """An error, or an output that was not written."""
    more = Connection.respond(3, ExitResponse(exit_code=1, output_error="x").encode())
    assert exit_code_of(more[10:]) == -1
    assert exit_code_of(Connection.fail(3, NotFound("x"))[10:]) == -1
