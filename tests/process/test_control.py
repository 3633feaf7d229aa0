"""The control socket: calls, errors, descriptors, a vanished supervisor."""

import _thread
import os
import socket

import pytest

from kata.errors import CommandNotFound, HypervisorError, KataError, NotFound, WrongState
from kata.runtime.control import ControlClient, ControlServer, connect
from kata.runtime.control_api import ExecRequest, ExecResponse, ExitResponse
from kata.wire.agent_api import Empty, ProcessRequest


def serve(handlers):
    """A server on one end of a socket pair, a client on the other."""
    ours, theirs = socket.socketpair()
    server = ControlServer(handlers)
    server.serve(ours)
    return server, ControlClient(theirs)


def test_call_and_answer():
    """An answer comes back with its values."""
    _, client = serve({"Wait": lambda request, fds: ExitResponse(exit_code=len(request.exec_id))})
    assert client.call("Wait", ProcessRequest(exec_id="abc")).exit_code == 3
    client.close()


def test_errors_keep_class_hint_and_console():
    """What a handler raises is raised at the client."""

    def refuse(_request, _fds):
        raise HypervisorError("no boot", why="panic", hint="look", console="last words")

    _, client = serve({"Started": refuse})
    with pytest.raises(HypervisorError, match="no boot: panic") as caught:
        client.call("Started", Empty())
    assert (caught.value.hint, caught.value.console) == ("look", "last words")
    client.close()


def test_exit_code_of_a_missing_command_survives():
    """127 stays 127 across the socket."""

    def refuse(_request, _fds):
        raise CommandNotFound('exec: "x": executable file not found in $PATH')

    _, client = serve({"Started": refuse})
    with pytest.raises(CommandNotFound) as caught:
        client.call("Started", Empty())
    assert caught.value.exit_code == 127
    client.close()


def test_descriptors_travel():
    """A descriptor passed with a call is usable, and closed at the sender's without harm."""
    reader, writer = os.pipe()

    def write(request, fds):
        os.write(fds[0], request.arguments[0].encode())
        os.close(fds[0])
        return ExecResponse(exec_id="e")

    _, client = serve({"Exec": write})
    number = client.send("Exec", ExecRequest(arguments=["hello"]), [writer])
    os.close(writer)
    client.result(number)
    assert os.read(reader, 100) == b"hello"
    assert os.read(reader, 100) == b""
    os.close(reader)
    client.close()


def test_a_waiting_call_blocks_no_other():
    """Calls are answered as they finish."""
    release = _thread.allocate_lock()
    release.acquire()

    def wait(_request, _fds):
        release.acquire()
        return ExitResponse(exit_code=7)

    server, client = serve({"Wait": wait, "Pause": lambda r, f: Empty()})
    number = client.send("Wait", ProcessRequest())
    client.call("Pause", Empty())
    assert not client.answered(number)
    release.release()
    assert client.result(number).exit_code == 7
    server.drain(5)
    client.close()


def test_unknown_method_and_broken_handler():
    """Both are errors of the call, not of the server."""
    _, client = serve({"Pause": lambda r, f: 1 / 0, "Resume": lambda r, f: Empty()})
    with pytest.raises(KataError, match="internal error"):
        client.call("Pause", Empty())
    with pytest.raises(KataError, match="unknown control method"):
        client.call("Stop", Empty())
    client.call("Resume", Empty())
    client.close()


def test_a_vanished_supervisor_is_said_so():
    """End of file instead of an answer is a clear error."""
    ours, theirs = socket.socketpair()
    client = ControlClient(theirs)
    number = client.send("Wait", ProcessRequest())
    ours.close()
    with pytest.raises(WrongState, match="supervisor of the container is gone"):
        client.result(number)
    client.close()


def test_connect_through_a_long_directory_name(tmp_path):
    """The length of the state directory's name does not matter to the socket."""
    directory = tmp_path / ("d" * 120)
    directory.mkdir()
    server = ControlServer({"Pause": lambda r, f: Empty()})
    server.listen(str(directory))
    client = connect(str(directory), "x")
    client.call("Pause", Empty())
    client.close()
    server.close()
    with pytest.raises(WrongState, match="not running"):
        connect(str(directory), "x")
    with pytest.raises(NotFound):
        connect(str(tmp_path / "none"), "x")
