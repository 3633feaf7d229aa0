"""Name queries of containers, passed on to the host: a datagram and a listening socket.

The rule: a query waits for nothing here. The host answers each one that it was passed, and whoever
finds no room is not heard: a datagram is dropped, a connection is read no further.
"""

from __future__ import annotations

import _socket
import os
from select import EPOLLERR, EPOLLHUP, EPOLLIN, EPOLLOUT

from kata.errors import GuestError, InvalidInput, ProtocolError, WrongState
from kata.linux import namespaces as ns
from kata.linux import redirect
from kata.wire import dns
from kata.wire.agent_api import Empty, NameMessage
from kata.wire.ttrpc import Connection

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kata.guest.channel import Channel
    from kata.guest.loop import Loop
    from kata.wire.agent_api import ResolveRequest
    from kata.wire.ttrpc import Data

_TRIES = 16  # until a port is free for both kinds
_BATCH = 16  # datagrams or connections taken at a time
_MOST_CONNECTIONS = 32
_FLAGS = _socket.SOCK_NONBLOCK | _socket.SOCK_CLOEXEC


class Resolver:
    """What containers ask at one address, while the host's stream is open."""

    def __init__(self, loop: Loop, cgroup: str) -> None:
        self._loop, self._cgroup = loop, cgroup
        self._channel: Channel | None = None
        self._number = 0
        self._ledger = dns.Ledger()
        self._last = 0
        self._request: ResolveRequest | None = None
        self._datagrams: _socket.socket | None = None
        self._listener: _socket.socket | None = None
        self._clients: dict[int, _Client] = {}  # the one that was idle longest is first

    def open(self, channel: Channel, number: int, request: ResolveRequest) -> None:
        """The host listens. Raises ``WrongState``, ``InvalidInput``, ``GuestError``."""
        if self._channel is not None:
            raise WrongState("names are resolved already")
        if self._datagrams is None:
            self._listen(request)
        self._channel, self._number, self._request = channel, number, request
        channel.streams[number] = self

    def _listen(self, request: ResolveRequest) -> None:
        try:
            address = _socket.inet_aton(request.address)
        except OSError:
            raise InvalidInput(f'no address "{request.address[:40]}"') from None
        try:
            ns.loopback_up()
            datagrams, listener, port = _sockets(request.address)
            try:
                cookie = redirect.namespace_cookie(datagrams)
                redirect.attach(
                    self._cgroup, redirect.Redirect(address, request.port, port, cookie)
                )
            except OSError:
                datagrams.close()
                listener.close()
                raise
        except OSError as error:
            raise GuestError("the engine's names cannot be resolved", why=str(error)) from None
        self._datagrams, self._listener = datagrams, listener
        self._loop.watch(datagrams.fileno(), EPOLLIN, self._asked)
        self._loop.watch(listener.fileno(), EPOLLIN, self._connected)

    def move(self) -> None:
        """The network is another namespace now: be asked there."""
        if self._datagrams is None or self._listener is None:
            return
        for sock in (self._datagrams, self._listener):
            self._loop.forget(sock.fileno())
            sock.close()
        assert self._request is not None
        self._listen(self._request)

    def detach(self) -> None:
        """The host is gone, and with it all answers."""
        self._channel = None
        self._ledger = dns.Ledger()
        for client in list(self._clients.values()):
            client.close()

    def received(self, data: Data) -> None:
        """An answer of the host's, or its end."""
        if data.payload:
            answer = NameMessage.decode(data.payload)
            asker = self._ledger.take(answer.number)
            if asker is None:
                raise ProtocolError("an answer to no query", why=f"number {answer.number}")
            self._deliver(asker, answer.message)
        if data.closed and self._channel is not None:
            channel = self._channel
            self.detach()
            channel.streams.pop(self._number, None)
            channel.answer(Connection.respond(self._number, Empty().encode()))

    def _deliver(self, asker: _Client | tuple[str, int], message: bytes) -> None:
        if isinstance(asker, _Client):
            asker.answer(message)
        elif message and self._datagrams is not None:
            try:
                self._datagrams.sendto(message, asker)
            except OSError:
                pass  # too long, or nobody is there any more: it asks again
        for client in list(self._clients.values()):
            client.resume()

    def ask(self, asker: _Client | tuple[str, int], query: bytes) -> bool:
        """Pass a query on; whether there was room for it."""
        number = self._last + 1 & 0xFFFFFFFF
        if self._channel is None or not self._ledger.add(number, len(query), asker):
            return False
        self._last = number
        message = NameMessage(number=number, stream=isinstance(asker, _Client), message=query)
        self._channel.answer(Connection.data(self._number, message.encode()))
        return True

    def _asked(self, _events: int) -> None:
        assert self._datagrams is not None
        for _ in range(_BATCH):
            try:
                query, asker = self._datagrams.recvfrom(dns.MAX_SIZE)
            except BlockingIOError:
                return
            except OSError:
                continue  # an error that an answer of ours met
            if dns.plausible(query):
                self.ask(asker, query)

    def _connected(self, _events: int) -> None:
        assert self._listener is not None
        for _ in range(_BATCH):
            try:
                fd, _ = self._listener._accept()  # type: ignore[attr-defined]
            except OSError:
                return
            if self._channel is None:
                os.close(fd)
                continue
            os.set_blocking(fd, False)
            if len(self._clients) >= _MOST_CONNECTIONS:
                next(iter(self._clients.values())).close()
            self._clients[fd] = _Client(self, self._loop, self._clients, fd)


class _Client:
    """A connection: one query after the other, each answered before the next is read."""

    def __init__(
        self, resolver: Resolver, loop: Loop, clients: dict[int, _Client], fd: int
    ) -> None:
        self._resolver, self._loop, self._clients, self._fd = resolver, loop, clients, fd
        self._read = bytearray()
        self._query = b""  # one that found no room
        self._waiting = False  # for an answer
        self._rest = b""  # of an answer
        loop.watch(fd, EPOLLIN, self._ready)

    def _ready(self, events: int) -> None:
        try:
            if events & EPOLLOUT or self._rest:
                self._write()
            elif self._waiting or self._query:
                if events & (EPOLLERR | EPOLLHUP):
                    self.close()
            else:
                data = os.read(self._fd, dns.MAX_SIZE)
                self._read += data
                if data:
                    self._next()
                else:
                    self.close()
        except BlockingIOError:
            pass
        except OSError:
            self.close()

    def _next(self) -> None:
        """Pass the next query on if it is whole; what is none ends the connection."""
        query = dns.first(self._read)
        if query is None:
            return
        if not dns.plausible(query):
            self.close()
            return
        self._query = query
        self._loop.watch(self._fd, 0, self._ready)
        self.resume()

    def resume(self) -> None:
        """Try once more to pass a query on, now that there may be room."""
        if self._query and self._fd >= 0 and self._resolver.ask(self, self._query):
            self._query, self._waiting = b"", True

    def answer(self, message: bytes) -> None:
        """Pass an answer on; without one the connection ends."""
        if self._fd < 0:
            return
        self._waiting = False
        if not message:
            self.close()
            return
        self._clients[self._fd] = self._clients.pop(self._fd)
        self._rest = dns.framed(message)
        try:
            self._write()
        except OSError:
            self.close()

    def _write(self) -> None:
        try:
            self._rest = self._rest[os.write(self._fd, self._rest) :]
        except BlockingIOError:
            pass
        if self._rest:
            self._loop.watch(self._fd, EPOLLOUT, self._ready)
        else:
            self._loop.watch(self._fd, EPOLLIN, self._ready)
            self._next()

    def close(self) -> None:
        """Hang up; what is answered afterwards is for nobody."""
        if self._fd >= 0:
            self._loop.forget(self._fd)
            self._clients.pop(self._fd, None)
            os.close(self._fd)
            self._fd = -1


def _sockets(address: str) -> tuple[_socket.socket, _socket.socket, int]:
    """Both sockets and their port, which is any that is free for both. Raises ``OSError``."""
    for attempt in range(_TRIES):
        listener = _socket.socket(_socket.AF_INET, _socket.SOCK_STREAM | _FLAGS)
        datagrams = _socket.socket(_socket.AF_INET, _socket.SOCK_DGRAM | _FLAGS)
        try:
            listener.bind((address, 0))
            port = listener.getsockname()[1]
            datagrams.bind((address, port))
            listener.listen(_MOST_CONNECTIONS)
        except OSError:
            listener.close()
            datagrams.close()
            if attempt + 1 == _TRIES:
                raise
        else:
            return datagrams, listener, port
    raise AssertionError("unreachable")
