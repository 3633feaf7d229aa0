"""The shim's parts over real sockets and pipes: server, events, address, streams."""

import os
import socket
import threading
import time

import pytest

from kata.errors import AlreadyExists, CommandNotFound, HostError, InvalidInput, KataError, NotFound
from kata.shim import address as addresses
from kata.shim.events import Publisher
from kata.shim.server import Server
from kata.shim.stdio import Places, open_streams
from kata.wire.containerd_events import TaskExit, TaskStart
from kata.wire.containerd_task import PidResponse, TaskRequest
from support.containerd import SERVICE, Events, Shim


@pytest.fixture
def listener(tmp_path):
    """A listening socket at a path."""
    path = f"{tmp_path}/s/sock"
    sock = addresses.listen(path)
    yield sock, path
    try:
        sock.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass  # the test closed it
    sock.close()


def served(listener, handler):
    """A shim whose State is answered by ``handler``."""
    sock, path = listener
    Server({SERVICE: {"State": (TaskRequest, handler)}}).listen(sock)
    return Shim(f"unix://{path}")


def ask(shim, name):
    """Call State."""
    return shim.call("State", TaskRequest(id=name), PidResponse)


def test_calls_do_not_wait_for_each_other(listener):
    """One that hangs for ever leaves the others alone."""
    hang = threading.Event()

    def handler(request):
        if request.id == "slow":
            hang.wait(30)
        return PidResponse(pid=len(request.id))

    shim = served(listener, handler)
    slow = threading.Thread(target=lambda: ask(shim, "slow"))
    slow.start()
    assert [ask(shim, "x" * n).pid for n in (1, 2, 3)] == [1, 2, 3]
    hang.set()
    slow.join(10)


@pytest.mark.parametrize(
    ("error", "code"), [(NotFound("no"), 5), (CommandNotFound("prog"), 2), (ValueError("x"), 2)]
)
def test_errors_travel_as_codes(listener, error, code, capfd):
    """What is no error of ours is told as one, and its trace goes to the log."""

    def handler(_request):
        raise error

    with pytest.raises(KataError) as caught:
        ask(served(listener, handler), "x")
    assert caught.value.code == code
    assert ("Traceback" in capfd.readouterr().err) == isinstance(error, ValueError)


def test_garbage_ends_the_connection_alone(listener):
    """Another connection is served afterwards."""
    shim = served(listener, lambda _request: PidResponse(pid=1))
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(listener[1])
        sock.sendall(b"\xff" * 64)
        assert sock.recv(1) == b""
    assert ask(shim, "x").pid == 1


def test_an_address_of_the_living_and_of_the_dead(listener):
    """A socket that is served is taken; one that a dead shim left is replaced."""
    sock, path = listener
    with pytest.raises(AlreadyExists):
        addresses.listen(path)
    sock.close()
    assert not addresses.serves(path)
    again = addresses.listen(path)
    assert addresses.serves(path)
    again.close()
    with pytest.raises(HostError):
        addresses.listen("/proc/none/sock")


def test_one_path_for_each_sandbox():
    """The same for the same, others for others."""
    paths = {
        addresses.socket_path(*names)
        for names in (("/c", "n", "x"), ("/c", "n", "y"), ("/c", "m", "x"), ("/d", "n", "x"))
    }
    assert len(paths) == 4
    assert addresses.socket_path("/c", "n", "x") in paths
    assert all(len(path) < 100 for path in paths)


def test_events_come_in_order_and_wait(tmp_path):
    """While nobody listens they are kept; whoever publishes is not held up."""
    events = Events(f"{tmp_path}/e")
    publisher = Publisher(events.path, "ns")
    publisher.publish(TaskStart(container_id="a", pid=7))
    events.wait_for("/tasks/start", "a")
    events.vanish()
    begun = time.monotonic()
    for number in range(50):
        publisher.publish(TaskExit(container_id="a", exit_status=number))
    assert time.monotonic() - begun < 1
    assert not publisher.flush(0.2)
    events.appear()
    assert publisher.flush(20)
    told = [event.exit_status for topic, event in events.seen if topic == "/tasks/exit"]
    assert told == list(range(50))
    publisher.close()
    events.vanish()


def test_without_an_address_events_are_for_nobody():
    """CRI-O has no such socket."""
    publisher = Publisher("", "ns")
    publisher.publish(TaskStart(container_id="a"))
    assert publisher.flush(0)


def test_events_that_nobody_takes_are_bounded(tmp_path, capfd):
    """The oldest go, and the log says how many."""
    publisher = Publisher(f"{tmp_path}/none", "ns")
    for number in range(2048 + 3):
        publisher.publish(TaskExit(container_id="a", exit_status=number))
    assert "events are lost" in capfd.readouterr().err
    publisher.close()


def test_pipes_survive_their_other_ends(tmp_path):
    """A reader may come after the writing and go before it; input ends when it is said to."""
    given, taken = f"{tmp_path}/in", f"{tmp_path}/out"
    os.mkfifo(given)
    os.mkfifo(taken)
    stdio = open_streams(Places(given, taken), {}, -1)
    fds = stdio.release()
    assert set(fds) == {0, 1}
    os.write(fds[1], b"early")
    reader = os.open(taken, os.O_RDONLY | os.O_NONBLOCK)
    assert os.read(reader, 99) == b"early"
    os.close(reader)
    os.write(fds[1], b"kept")
    with open(given, "wb", buffering=0) as file:
        file.write(b"x")
    assert os.read(fds[0], 9) == b"x"
    with pytest.raises(BlockingIOError):
        os.read(fds[0], 9)
    stdio.close_input()
    assert os.read(fds[0], 9) == b""
    os.close(fds[1])
    reader = os.open(taken, os.O_RDONLY | os.O_NONBLOCK)
    assert os.read(reader, 99) == b"kept"
    os.close(reader)
    os.close(fds[0])
    stdio.close()


def test_a_pipe_by_its_address(tmp_path):
    """``fifo://`` is said of a pipe, too."""
    taken = f"{tmp_path}/out"
    os.mkfifo(taken)
    stdio = open_streams(Places("", f"fifo://{taken}"), {}, -1)
    os.write(stdio.fds[1], b"said")
    reader = os.open(taken, os.O_RDONLY | os.O_NONBLOCK)
    assert os.read(reader, 99) == b"said"
    os.close(reader)
    stdio.close()


@pytest.mark.parametrize("where", ["/none/at/all", "odd://x"])
def test_streams_that_cannot_be(where):
    """Refused, and nothing stays open."""
    before = os.listdir("/proc/self/fd")
    with pytest.raises((HostError, InvalidInput)):
        open_streams(Places("", where, where), {}, -1)
    assert os.listdir("/proc/self/fd") == before


def test_a_plain_file_is_no_pipe(tmp_path):
    """Output goes to it by its own address only."""
    path = tmp_path / "file"
    path.write_text("mine")
    with pytest.raises(InvalidInput, match="no named pipe"):
        open_streams(Places("", str(path)), {}, -1)
    assert path.read_text() == "mine"
    stdio = open_streams(Places("", f"file://{path}"), {}, -1)
    os.write(stdio.fds[1], b" and more")
    stdio.close()
    assert path.read_text() == "mine and more"
