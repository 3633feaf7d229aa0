"""The agent's channel and streams on real descriptors: how many system calls bytes cost.

The one rule: the host's end is a socket that keeps writes apart, so that they can be counted.
"""

import _signal
import os
import socket
from fcntl import fcntl
from select import EPOLLIN

import pytest

from kata.guest.channel import Channel
from kata.guest.loop import Loop
from kata.guest.streams import Input, Output
from kata.wire.flow import MAX_CHUNK, WINDOW
from kata.wire.ttrpc import Connection, Data, Response

F_GETPIPE_SZ = 1032
LARGEST_WRITE = 64 << 10  # one frame of the largest piece, with its header


class Host:
    """The host's end, and an agent's loop that is turned by hand."""

    def __init__(self, kind):
        self.sock, self.port = socket.socketpair(socket.AF_UNIX, kind)
        self.sock.settimeout(5)
        for end in (self.sock, self.port):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)
        self.before = _signal.getsignal(_signal.SIGCHLD)
        self.loop, self.got = Loop(), []
        self.wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.loop.watch(self.wake, EPOLLIN, lambda _: os.eventfd_read(self.wake))
        self.channel = Channel(self.loop, self.port.fileno(), self.got.append)
        self.loop.after_each(self.channel.flush)

    def turn(self):
        """One batch of what is ready."""
        self.loop.at_last(self.loop.stop)
        os.eventfd_write(self.wake, 1)
        self.loop.run()

    def close(self):
        """The loop has no end in the guest: its descriptors and signals are put back here."""
        _signal.signal(_signal.SIGCHLD, self.before)
        os.close(_signal.set_wakeup_fd(-1))
        self.loop._epoll.close()
        for fd in (self.loop._woken, self.wake):
            os.close(fd)

    def writes(self):
        """What was written, one item for each time."""
        found = []
        self.sock.setblocking(False)
        try:
            while data := self.sock.recv(1 << 20):
                found.append(data)
        except BlockingIOError:
            return found


@pytest.fixture
def host():
    """Ends of the given kind of socket."""
    made = []

    def make(kind=socket.SOCK_SEQPACKET):
        one = Host(kind)
        made.append(one)
        return one

    yield make
    for one in made:
        for stream in list(one.channel.streams.values()):
            stream.close()
        for end in (one.sock, one.port):
            end.close()
        one.close()


def test_answers_and_data_go_in_one_write_answers_first(host):
    """Each write wakes the emulator and interrupts the guest: what fits goes together."""
    one = host()
    one.channel.data(Connection.data(5, b"out"))
    one.channel.data(Connection.data(7, b"err"))
    one.channel.answer(Connection.respond(1, b""))
    one.channel.answer(Connection.respond(3, b""))
    one.channel.flush()
    [written] = one.writes()
    events = Connection().receive(written)
    assert [e.stream for e in events] == [1, 3, 5, 7]
    assert [type(e) for e in events] == [Response, Response, Data, Data]


def test_a_flood_is_written_in_pieces_and_an_answer_waits_for_one(host):
    """However much data is queued, an answer that comes is behind one write of it at most."""
    one = host()
    frame = Connection.data(5, bytes(20 << 10))
    for _ in range(8):
        one.channel.data(frame)
    one.channel.flush()
    sizes = [len(w) for w in one.writes()]
    assert sum(sizes) == 8 * len(frame)
    assert max(sizes) <= 2 * len(frame)


def test_a_full_pipe_goes_out_in_whole_writes(host):
    """A frame with its header is as much as the driver takes in two writes."""
    one = host()
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    os.write(writer, bytes(LARGEST_WRITE))
    out = Output(one.loop, reader, terminal=False)
    out.open(one.channel, 5)
    one.turn()
    os.close(writer)
    assert len(one.writes()[0]) == LARGEST_WRITE == MAX_CHUNK


def test_input_arrives_whole_however_it_is_cut(host):
    """Several pages at once, and the rest of one, are what was sent."""
    one = host(socket.SOCK_STREAM)
    payload = os.urandom(150_001)
    data = b"".join(
        Connection.data(5, payload[at : at + 50_000]) for at in range(0, len(payload), 50_000)
    )
    sent = 0
    while sent < len(data):
        sent += one.sock.send(data[sent : sent + 33_333])
        one.turn()
    for _ in range(4):
        one.turn()
    assert b"".join(event.payload for event in one.got) == payload


def test_a_pipe_that_fills_is_widened_to_a_window(host):
    """Then the agent and the process take fewer turns; one that is read at once stays as it is."""
    one = host()
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    stream = Input(one.loop, writer, terminal=False)
    stream.open(one.channel, 5)
    before = fcntl(reader, F_GETPIPE_SZ)
    stream.received(Data(5, bytes(1000)))
    assert fcntl(reader, F_GETPIPE_SZ) == before < WINDOW
    for _ in range(3):
        stream.received(Data(5, bytes(MAX_CHUNK)))
    assert fcntl(reader, F_GETPIPE_SZ) == WINDOW
    one.turn()
    assert len(os.read(reader, 1 << 20)) == 1000 + 3 * MAX_CHUNK
    os.close(reader)
