"""The client to the agent, against peers good and bad."""

import _thread
import os
import socket

import pytest

from kata.errors import AgentError, CommandNotFound
from kata.runtime.rpc import Client
from kata.runtime.streams import InputPump, OutputPump
from kata.wire.agent_api import (
    ClockResponse,
    ProcessRequest,
    SetClockRequest,
    StreamRequest,
    StreamResponse,
    WaitResponse,
)
from kata.wire.flow import WINDOW
from kata.wire.ttrpc import Connection, Data, Request


class Peer:
    """The other end, spoken by hand."""

    def __init__(self):
        ours, self.sock = socket.socketpair()
        self.connection = Connection()
        self.events = []
        self.client = Client(ours)

    def next(self):
        while not self.events:
            data = self.sock.recv(65536)
            assert data, "the client hung up"
            self.events += self.connection.receive(data)
        return self.events.pop(0)

    def send(self, data):
        self.sock.sendall(data)

    def close(self):
        self.client.close()
        self.sock.close()


@pytest.fixture
def peer():
    made = Peer()
    yield made
    made.close()


def test_answers_in_any_order(peer):
    """Two calls under way are told apart."""
    first = peer.client.start("Wait", ProcessRequest())
    second = peer.client.start("SetClock", SetClockRequest())
    a, b = peer.next(), peer.next()
    assert (a.method, b.method) == ("Wait", "SetClock")
    peer.send(Connection.respond(b.stream, ClockResponse(realtime_ns=5).encode()))
    assert second.result(5).realtime_ns == 5
    peer.send(Connection.respond(a.stream, WaitResponse(exit_code=3).encode()))
    assert first.result(5).exit_code == 3


def test_the_agents_errors_keep_their_class(peer):
    """A refusal of the agent is the same error on the host."""
    call = peer.client.start("Wait", ProcessRequest())
    peer.send(Connection.fail(peer.next().stream, CommandNotFound("exec: nothing")))
    with pytest.raises(CommandNotFound, match="exec: nothing"):
        call.result(5)


def test_silence_ends_in_a_clear_error(peer):
    """No answer is an error that says what to do."""
    with pytest.raises(AgentError, match="did not answer") as caught:
        peer.client.call("Wait", ProcessRequest(), timeout=0.05)
    assert "kata rm -f" in caught.value.hint


@pytest.mark.parametrize(
    ("reply", "why"),
    [
        (b"\xff" * 64, "too large"),
        (b"\0\0\0\0\0\0\0\1\x09\0", "unknown message type"),
        (b"\0\0\0\5\0\0\0\1\x02\0" + b"\xff" * 5, "malformed"),
        (Connection.respond(77, b""), "an answer to no call"),
        (Connection.data(77, b"x"), "data on no stream"),
        (Connection().request("a", "b", b"")[1], "a request from the guest"),
        (b"", "closed the connection"),
    ],
)
def test_garbage_ends_the_connection_for_everyone(peer, reply, why):
    """Whatever breaks the protocol fails every call under way, and later ones, at once."""
    calls = [peer.client.start("Wait", ProcessRequest()) for _ in range(3)]
    peer.send(reply) if reply else peer.sock.shutdown(socket.SHUT_WR)
    for call in calls:
        with pytest.raises(AgentError, match=why):
            call.result(5)
    with pytest.raises(AgentError):
        peer.client.call("Wait", ProcessRequest(), timeout=5)


def test_more_than_the_window_is_refused(peer):
    """A guest that sends output nobody asked for cannot fill our memory."""
    stream = peer.client.stream("ReadOutput", StreamRequest(stream=1))
    number = peer.next().stream
    for _ in range(WINDOW // 65536 + 1):
        peer.send(Connection.data(number, bytes(65536)))
    with pytest.raises(AgentError, match="more than its window"):
        stream.result(5)


def test_a_flood_of_grants_is_refused(peer):
    """Window grants are bounded too."""
    stream = peer.client.stream("WriteInput", StreamRequest())
    number = peer.next().stream
    peer.send(Connection.data(number, b"\0\0\0\1") * 5000)
    with pytest.raises(AgentError, match="too many window grants"):
        stream.result(5)


def test_patience_is_the_callers(peer):
    """An answer that does not come ends the call after the time that was set."""
    peer.client.call_timeout = 0.05
    with pytest.raises(AgentError, match=r"within 0.05 s"):
        peer.client.call("SetClock", SetClockRequest())


def test_output_is_carried_whole_and_in_order(peer):
    """A megabyte through a window of 256 KiB, with grants, byte for byte."""
    sent = os.urandom(1 << 20)
    reader, writer = os.pipe()
    stream = peer.client.stream("ReadOutput", StreamRequest(stream=1))
    number = peer.next().stream
    pump = OutputPump(stream, writer)

    def agent():
        window, at = WINDOW, 0
        while at < len(sent):
            size = min(window, 32768, len(sent) - at)
            if size:
                peer.send(Connection.data(number, sent[at : at + size]))
                at, window = at + size, window - size
            else:
                event = peer.next()
                assert isinstance(event, Data)
                window += int.from_bytes(event.payload, "big")
        peer.send(Connection.data(number, b"", close=True))
        peer.send(Connection.respond(number, StreamResponse(count=at).encode()))

    _thread.start_new_thread(agent, ())
    received = bytearray()
    while piece := os.read(reader, 65536):
        received += piece
    assert bytes(received) == sent
    assert pump.wait(5)
    assert stream.result(5).count == len(sent)
    os.close(reader)


def test_a_reader_that_went_away_ends_the_stream(peer):
    """When nobody reads the output any more, the agent is told, so that the process is."""
    reader, writer = os.pipe()
    os.close(reader)
    stream = peer.client.stream("ReadOutput", StreamRequest(stream=1))
    number = peer.next().stream
    pump = OutputPump(stream, writer)
    peer.send(Connection.data(number, b"x"))
    event = peer.next()
    assert isinstance(event, Data)
    assert event.closed
    peer.send(Connection.respond(number, b""))
    assert pump.wait(5)
    assert not pump.failure


def test_output_that_cannot_be_written_is_remembered(peer):
    """A full disk is not somebody who went away: it is said, once the process has ended."""
    stream = peer.client.stream("ReadOutput", StreamRequest(stream=1))
    number = peer.next().stream
    pump = OutputPump(stream, os.open("/dev/full", os.O_WRONLY))
    peer.send(Connection.data(number, b"x"))
    assert peer.next().closed
    peer.send(Connection.respond(number, b""))
    assert pump.wait(5)
    assert pump.failure == "No space left on device"


def test_input_waits_for_the_window_and_ends(peer):
    """No more input than granted is sent; its end is passed on; the rest comes with a grant."""
    reader, writer = os.pipe()
    stream = peer.client.stream("WriteInput", StreamRequest())
    assert isinstance(peer.next(), Request)
    pump = InputPump(stream, reader)
    data = os.urandom(WINDOW + 1000)

    def feed():
        with open(writer, "wb") as file:
            file.write(data)

    _thread.start_new_thread(feed, ())
    received = b""
    while len(received) < WINDOW:
        received += peer.next().payload
    peer.sock.settimeout(0.2)
    with pytest.raises(TimeoutError):
        peer.next()
    peer.sock.settimeout(None)
    peer.send(Connection.data(stream.number, (2000).to_bytes(4, "big")))
    closed = False
    while not closed:
        event = peer.next()
        received += event.payload
        closed = event.closed
    assert received == data
    peer.send(Connection.respond(stream.number, b""))
    pump.finish()


def test_input_stops_when_the_process_is_gone(peer):
    """The end of the stream frees the descriptor even while nothing is typed."""
    reader, writer = os.pipe()
    stream = peer.client.stream("WriteInput", StreamRequest())
    number = peer.next().stream
    pump = InputPump(stream, reader)
    peer.send(Connection.respond(number, b""))
    stream.result(5)
    pump.finish()
    with pytest.raises(BrokenPipeError):
        os.write(writer, b"x")
    os.close(writer)
