"""What the verbs of ``kata-runtime`` that engines call most load, and that they do the same.

The one rule: the verb is run, against a supervisor that answers; what it loaded on the way is all
on a list here, and a new line needs a reason. What is not plain goes the long way.
"""

import json
import os
import subprocess

import pytest

from kata.cli.runtime.quick import Plain, framed, signal_of
from kata.errors import AgentError
from kata.oci.signals import NUMBERS, number
from kata.runtime.control import SERVICE, ControlServer
from kata.runtime.store import CREATED, RUNNING, STOPPED, ContainerState, Store, new_id
from kata.wire.calls import Empty, SignalRequest
from kata.wire.ttrpc import Connection
from support.source import CHECKOUT, SOURCE

PYTHON = "/usr/bin/python3"
EVERY = {
    "kata", "kata.cli", "kata.cli.runtime", "kata.cli.runtime.quick", "kata.wire",
    "kata.wire.quickjson",
}  # fmt: skip
VERBS = {
    "state": (RUNNING, {
        "kata.cli.runtime.state", "kata.oci", "kata.oci.state", "kata.oci.version",
        "kata.wire.record", "fcntl",
    }),
    "kill": (RUNNING, {"fcntl", "_socket"}),
    "start": (CREATED, {"fcntl", "_socket"}),
    "delete": (STOPPED, {"fcntl"}),
}  # fmt: skip
FOREIGN = {"__future__", "_json", "gc"}
RUN = """
import sys
before = set(sys.modules)
sys.path.insert(0, sys.argv[1])
from kata.cli.runtime.quick import run
run(sys.argv[2:])
print(*sorted(set(sys.modules) - before), file=sys.stderr)
"""


class Box:
    """A container on disk, and what answers for it."""

    def __init__(self, root, status, **fields):
        self.root, self.calls, self.failure = str(root), [], None
        self.group = f"{root}/group"
        os.mkdir(self.group)
        self.store = Store(self.root)
        self.state = ContainerState(
            id=new_id(), name="box", status=status, pid=4711, bundle="/b", rootfs="/b/r",
            created_ns=1_700_000_000_120_000_000, traces=(self.group, f"{root}/uids/1"),
            annotations=(("k", "v"),), **fields,
        )  # fmt: skip
        self._lock = self.store.create(self.state)
        self._server = ControlServer({"Signal": self._answer, "Start": self._answer})
        self._server.listen(self.store.directory(self.state.id))
        if status == STOPPED:
            self.leave()

    def _answer(self, request, _fds):
        self.calls.append(request)
        if self.failure:
            raise self.failure
        return Empty()

    def leave(self):
        """The supervisor is gone."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def close(self):
        """No more answers."""
        self.leave()
        self._server.close()

    def run(self, *words):
        """The program itself."""
        return subprocess.run(
            [f"{CHECKOUT}/bin/kata-runtime", "--root", self.root, *words],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip


@pytest.fixture
def box(tmp_path):
    """Makes one container."""
    made = []

    def make(status, **fields):
        made.append(Box(tmp_path, status, **fields))
        return made[0]

    yield make
    made[0].close()


@pytest.mark.parametrize("verb", VERBS)
def test_quick_verbs_load_next_to_nothing(verb, box):
    """Engines call these several times for each container: no verb loads what it does not use."""
    status, own = VERBS[verb]
    made = box(status)
    done = subprocess.run(
        [PYTHON, "-I", "-S", "-c", RUN, SOURCE, "--root", made.root, verb, "box"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert set(done.stderr.splitlines()[-1].split()) <= {*EVERY, *FOREIGN, *own}


@pytest.mark.parametrize("status", [CREATED, RUNNING, STOPPED])
def test_the_state_is_the_same_either_way(status, box):
    """What the quick way prints is what the verb's own module prints."""
    made = box(status)
    quick, whole = made.run("state", "box"), made.run("--rootless=false", "state", "box")
    assert quick.stdout == whole.stdout
    assert json.loads(quick.stdout)["status"] == status


def test_a_supervisor_that_was_killed_is_seen(box):
    """A state that says "running" without anybody to run it is stopped."""
    made = box(RUNNING)
    made.leave()
    assert json.loads(made.run("state", "box").stdout)["status"] == STOPPED
    assert "not running" in made.run("kill", "box").stderr


def test_a_call_is_framed_as_the_codec_frames_it():
    """The few bytes written by hand are those of the tables."""
    request = SignalRequest(container_id="c" * 64, signal=9).encode()
    assert framed("Signal", request) == Connection().request(SERVICE, "Signal", request)[1]


@pytest.mark.parametrize(("word", "signal"), [("KILL", 9), ("15", 15), ("SIGRTMIN+3", 37)])
def test_kill_sends_the_signal(word, signal, box):
    """By name and number, to the container that was named."""
    made = box(RUNNING)
    done = made.run("kill", "box", word)
    assert done.returncode == 0, done.stderr
    [request] = made.calls
    assert (request.container_id, request.signal) == (made.state.id, signal)


def test_a_failed_start_is_asked_for_once_and_told(box):
    """The supervisor's error is the command's, whichever way it takes."""
    made = box(CREATED)
    made.failure = AgentError("the guest is asleep")
    done = made.run("start", "box")
    assert done.returncode == 1
    assert "the guest is asleep" in done.stderr
    assert len(made.calls) == 1


def test_signals_have_the_numbers_of_the_table():
    """All names and numbers; what is neither is left to the table."""
    for name, value in [*NUMBERS.items(), ("CLD", 17), ("POLL", 29), ("RTMIN", 34)]:
        assert {signal_of(name), signal_of(f"sig{name.lower()}"), signal_of(str(value))} == {value}
        assert number(name) == value
    for word in ("0", "65", "NOPE", "_UNBLOCK", "SIG_SETMASK", "RTMIN+1", "-9", "٣", "SIG"):
        with pytest.raises(Plain):
            signal_of(word)


@pytest.mark.parametrize("force", [(), ("--force",)])
def test_delete_leaves_nothing(force, box):
    """State, name and groups are gone; a second time there is nothing to delete."""
    made = box(STOPPED)
    assert made.run("delete", *force, "box").returncode == 0
    assert os.listdir(made.root) == ["names"]
    assert os.listdir(f"{made.root}/names") == []
    assert made.run("delete", "box").returncode == 1


def test_delete_goes_the_long_way_where_something_was_left(box):
    """The lock of a user id that a killed supervisor left is freed, and all else removed."""
    made = box(STOPPED)
    os.mkdir(f"{made.root}/uids")
    with open(f"{made.root}/uids/1", "w", encoding="ascii"):
        pass
    assert made.run("delete", "box").returncode == 0
    assert os.listdir(f"{made.root}/uids") == []
    assert os.listdir(f"{made.root}/names") == []


@pytest.mark.parametrize("words", [
    ("state",), ("state", "nope"), ("kill", "box", "NOPE"), ("kill", "box", "1", "2"),
    ("delete", "box"), ("state", "../box"), ("nonsense", "box"),
])  # fmt: skip
def test_what_is_wrong_is_told_by_the_verbs_own_module(words, box):
    """One line that says what is wrong, and nothing done."""
    made = box(RUNNING)
    done = made.run(*words)
    assert done.returncode
    assert "Traceback" not in done.stderr
    assert "level=error" in done.stderr
    assert made.calls == []
