"""A connection that the host passes on: a socket to a port of the loopback, a stream to the host.

The rule: neither end is read faster than the other takes it. What the socket brings waits there
while the host has granted no room; what the host sends is at most its window.
"""

from __future__ import annotations

import _socket
from _collections import deque
from select import EPOLLERR, EPOLLHUP, EPOLLIN, EPOLLOUT

from kata.errors import GuestError, InvalidInput
from kata.wire.agent_api import ForwardMessage, StreamResponse
from kata.wire.flow import MAX_CHUNK, ReceiveWindow, SendWindow
from kata.wire.ttrpc import Connection

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kata.guest.channel import Channel
    from kata.guest.loop import Loop
    from kata.wire.ttrpc import Data

_KIND = _socket.SOCK_STREAM | _socket.SOCK_NONBLOCK | _socket.SOCK_CLOEXEC
_RESET = (1).to_bytes(4, "little") + bytes(4)  # SO_LINGER of no seconds


class Forward:
    """One connection, from ``connect`` until its stream has ended."""

    def __init__(self, loop: Loop, channel: Channel, number: int) -> None:
        self._loop, self._channel, self._number = loop, channel, number
        self._sock: _socket.socket | None = None
        self._connecting = False
        self._left = [(_socket.AF_INET, "127.0.0.1"), (_socket.AF_INET6, "::1")]
        self._port = self._count = 0
        self._send, self._receive = SendWindow(), ReceiveWindow()
        self._pending: deque[bytes] = deque()
        self._host_ended = self._shut = self._read_all = self._queued = False

    def connect(self, port: int) -> None:
        """Connect; a refusal is the stream's answer. Raises ``InvalidInput``."""
        if not 0 < port <= 0xFFFF:
            raise InvalidInput(f"no port {port}")
        self._port = port
        self._channel.streams[self._number] = self
        self._try_next("")

    def _try_next(self, why: str) -> None:
        """Connect to the next address there is."""
        while self._left:
            family, address = self._left.pop(0)
            self._drop()
            try:
                self._sock = _socket.socket(family, _KIND)
                self._sock.connect((address, self._port))
            except BlockingIOError:
                self._connecting = True
                self._update()
                return
            except OSError as error:
                why = why or error.strerror or str(error)
            else:
                self._go_on(EPOLLIN)
                return
        self._fail(GuestError(f"cannot connect to port {self._port}", why=why))

    def received(self, data: Data) -> None:
        """Bytes for the socket, room for what comes of it, or the end of either."""
        if data.closed:
            self._drop()
            self._finish(StreamResponse(count=self._count))
            return
        message = ForwardMessage.decode(data.payload)
        if message.grant:
            self._send.grant(message.grant)
        if message.data:
            self._receive.received(len(message.data))
            self._pending.append(message.data)
        self._host_ended = self._host_ended or message.end
        self._go_on(0)

    def detach(self) -> None:
        """The host is gone."""
        self._drop()
        self._channel.streams.pop(self._number, None)

    def _ready(self, events: int) -> None:
        if self._connecting:
            self._connecting = False
            assert self._sock is not None
            number = self._sock.getsockopt(_socket.SOL_SOCKET, _socket.SO_ERROR)
            if number:
                self._try_next(OSError(number, "").strerror or f"errno {number}")
                return
        self._go_on(events)

    def _go_on(self, events: int) -> None:
        """Carry what can be carried, and end what has ended."""
        if self._sock is None or self._connecting:
            return
        try:
            self._write(self._sock)
            if events & (EPOLLIN | EPOLLERR | EPOLLHUP) and self._may_read():
                self._read(self._sock)
        except OSError as error:
            why = error.strerror or str(error)
            self._fail(GuestError(f"the connection to port {self._port} broke", why=why))
            return
        if self._read_all and self._shut:
            self._drop()
            self._finish(StreamResponse(count=self._count))
        else:
            self._update()

    def _write(self, sock: _socket.socket) -> None:
        while self._pending:
            data = self._pending.popleft()
            try:
                written = sock.send(data)
            except BlockingIOError:
                self._pending.appendleft(data)
                return
            if written < len(data):
                self._pending.appendleft(data[written:])
            grant = self._receive.consumed(written)
            if grant:
                self._channel.answer(self._message(ForwardMessage(grant=grant)))
        if self._host_ended and not self._shut:
            self._shut = True
            sock.shutdown(_socket.SHUT_WR)

    def _may_read(self) -> bool:
        """Whether there is room for more; where the channel has none, it calls back."""
        if self._read_all or self._queued or not self._send.available:
            return False
        if not self._channel.has_room():
            self._queued = True
            self._channel.when_room(self._room)
        return not self._queued

    def _room(self) -> None:
        self._queued = False
        self._go_on(EPOLLIN)

    def _read(self, sock: _socket.socket) -> None:
        try:
            data = sock.recv(min(self._send.available, MAX_CHUNK))
        except BlockingIOError:
            return
        self._send.take(len(data))
        self._count += len(data)
        self._read_all = not data
        self._channel.data(self._message(ForwardMessage(data=data, end=not data)))

    def _message(self, message: ForwardMessage) -> bytes:
        return Connection.data(self._number, message.encode())

    def _update(self) -> None:
        """Wait for what the socket is to do next; for nothing, if others are to do it."""
        assert self._sock is not None
        events = EPOLLOUT if self._connecting or self._pending else 0
        if not self._connecting and self._may_read():
            events |= EPOLLIN
        if events:
            self._loop.watch(self._sock.fileno(), events, self._ready)
        else:
            self._loop.forget(self._sock.fileno())

    def _drop(self) -> None:
        """Close the socket; a connection that has not ended both ways is reset."""
        if self._sock is not None:
            self._loop.forget(self._sock.fileno())
            if not (self._read_all and self._shut):
                self._sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_LINGER, _RESET)
            self._sock.close()
            self._sock = None

    def _fail(self, error: GuestError) -> None:
        self._drop()
        self._end(Connection.fail(self._number, error))

    def _finish(self, answer: StreamResponse) -> None:
        self._end(Connection.respond(self._number, answer.encode()))

    def _end(self, answer: bytes) -> None:
        """The answer, after all data that is on its way."""
        if self._channel.streams.pop(self._number, None) is not None:
            self._channel.data(answer)
