"""Verbs that speak to a supervisor, over a real socket with handlers of the test behind it."""

from __future__ import annotations

import json
import os
import threading
import time

import pytest

from kata.cli.main import main
from kata.errors import GuestError
from kata.runtime.control import ControlServer
from kata.runtime.control_api import ExitResponse, InspectResponse
from kata.runtime.store import LOST_EXIT_CODE, RUNNING, STOPPED, ContainerState, Store, new_id
from kata.wire.agent_api import Empty
from kata.wire.record import replace


class Supervisor:
    """As much of a supervisor as the verbs see: a held lock, a socket, an end."""

    def __init__(self, store: Store, name: str) -> None:
        now = time.time_ns()
        self.store = store
        self.state = ContainerState(
            id=new_id(), name=name, image="img", command=("sh",), status=RUNNING,
            created_ns=now, started_ns=now, stop_timeout=7,
        )  # fmt: skip
        self.lock = store.create(self.state)
        self.ended = threading.Event()
        self.calls: list[tuple[str, int]] = []
        handlers = {
            "Signal": self._signal, "Stop": self._stop, "Wait": self._wait,
            "Inspect": lambda *_: InspectResponse(sandbox=b'{"vmm_pid": 42}'),
        }  # fmt: skip
        self.server = ControlServer(handlers)
        self.server.listen(store.directory(self.state.id))

    def _signal(self, request, _fds):
        if request.signal == 10:
            raise GuestError("cannot signal", why="no such process")
        self.calls.append(("signal", request.signal))
        return Empty()

    def _stop(self, request, _fds):
        self.calls.append(("stop", request.timeout))
        self.end(137)
        return ExitResponse(exit_code=137)

    def _wait(self, _request, _fds):
        self.ended.wait(10)
        return ExitResponse(exit_code=5)

    def end(self, code):
        """The container has ended; the state says so."""
        ended = replace(self.state, status=STOPPED, exit_code=code, finished_ns=time.time_ns())
        self.store.save(ended)
        self.ended.set()

    def close(self):
        """Let go of the lock."""
        self.ended.set()
        self.server.close()
        if self.lock >= 0:
            os.close(self.lock)
            self.lock = -1


@pytest.fixture
def running(tmp_path):
    """A running container ``web``."""
    supervisor = Supervisor(Store(str(tmp_path)), "web")
    yield supervisor
    supervisor.close()
    supervisor.store.forget(supervisor.state)


def kata(supervisor, *words):
    """Run a command line on the supervisor's store."""
    return main(["--root", supervisor.store.root, *words])


def test_kill(running, capsys):
    """A signal by any of its names reaches the container; a refusal is told."""
    assert kata(running, "kill", "web") == 0
    assert kata(running, "kill", "-s", "sighup", running.state.id[:10]) == 0
    assert kata(running, "kill", "-s", "10", "web") == 1
    assert running.calls == [("signal", 9), ("signal", 1)]
    captured = capsys.readouterr()
    assert captured.out.splitlines() == ["web", running.state.id[:10]]
    assert captured.err == "kata: cannot signal: no such process\n"


@pytest.mark.parametrize(("words", "timeout"), [([], 7), (["-t", "0"], 0), (["--time=3"], 3)])
def test_stop(running, capsys, words, timeout):
    """The time to wait is the container's own unless one is given."""
    assert kata(running, "stop", *words, "web") == 0
    assert running.calls == [("stop", timeout)]
    assert capsys.readouterr().out == "web\n"


def test_stop_of_several_goes_on_after_an_error(running, capsys):
    """What can be stopped is stopped; the exit code tells that something could not."""
    assert kata(running, "stop", "nosuch", "web") == 1
    assert running.calls == [("stop", 7)]
    captured = capsys.readouterr()
    assert captured.out == "web\n"
    assert 'no such container: "nosuch"' in captured.err


def test_wait(running, capsys):
    """The code is printed once the container has ended."""
    threading.Timer(0.1, running.ended.set).start()
    assert kata(running, "wait", "web") == 0
    assert capsys.readouterr().out == "5\n"


def test_a_supervisor_that_was_killed(running, capsys):
    """Once nobody holds the lock the container counts as ended by force."""
    os.close(running.lock)
    running.lock = -1
    assert kata(running, "wait", "web") == 0
    assert kata(running, "ps", "-a", "--format", "json") == 0
    out = capsys.readouterr().out
    assert out.startswith(f"{LOST_EXIT_CODE}\n")
    (item,) = json.loads(out[4:])
    assert (item["status"], item["exit_code"]) == ("stopped", LOST_EXIT_CODE)
    assert "was killed" in item["error"]


def test_inspect(running, capsys):
    """What the supervisor knows stands beside what is on disk."""
    with open(f"{running.store.directory(running.state.id)}/config.json", "w") as file:
        json.dump({"hostname": "web"}, file)
    assert kata(running, "inspect", "web") == 0
    (item,) = json.loads(capsys.readouterr().out)
    assert item["sandbox"] == {"vmm_pid": 42}
    assert item["config"] == {"hostname": "web"}
    assert item["status"] == "running"


def test_ps_shows_what_runs(running, capsys):
    """A running container needs no -a."""
    assert kata(running, "ps", "--no-trunc") == 0
    line = capsys.readouterr().out.splitlines()[1]
    assert line.startswith(running.state.id)
    assert "Up " in line
    assert line.endswith("web")


def test_logs_follow_to_the_end(running, capfdbinary):
    """``logs -f`` prints what comes while it watches, all of it, and ends with the container."""
    path = f"{running.store.directory(running.state.id)}/log"
    with open(path, "w") as file:
        file.write("t stdout F first\n")

    def go_on():
        with open(path, "a") as file:
            file.write("t stderr F second\n")
            file.flush()
            time.sleep(0.15)
            file.write("t stdout P last")
            file.write("\n")
        running.end(0)

    timer = threading.Timer(0.15, go_on)
    timer.start()
    assert kata(running, "logs", "-f", "web") == 0
    timer.join()
    assert capfdbinary.readouterr() == (b"first\nlast", b"second\n")
