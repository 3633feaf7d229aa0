"""Asking an engine's resolver in a sandbox's network namespace what its guest wants to know.

Docker answers names at 127.0.0.11 inside each namespace on the host; containers are in the guest.
The one rule: nothing but that address and port, in that namespace, is ever talked to, however
the guest asks. What it asks is bounded in number, size, rate and time.
"""

from __future__ import annotations

import _thread
import os
import select
import time
from _collections import deque
from _socket import AF_INET, SOCK_CLOEXEC, SOCK_DGRAM, SOCK_NONBLOCK, SOCK_STREAM, socket

from kata.errors import KataError, ProtocolError
from kata.linux.namespaces import Inside
from kata.wire import dns
from kata.wire.agent_api import RESOLVER, NameMessage

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

ADDRESS = (RESOLVER, 53)
TIMEOUT_S = 10.0
RATE, BURST = 500.0, 250.0  # queries in a second; at once
_EVER = float("inf")


class Bucket:
    """A rate, pure: so many at once, so many in a second."""

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self._rate, self._burst = rate, burst
        self._left, self._at = burst, now

    def take(self, now: float) -> float:
        """Take one: 0; or, when there is none, in how many seconds there is."""
        self._left = min(self._burst, self._left + (now - self._at) * self._rate)
        self._at = now
        if self._left < 1:
            return (1 - self._left) / self._rate
        self._left -= 1
        return 0.0


class Exchange:
    """One query with a socket of its own, so that no answer can be taken for another's."""

    def __init__(self, asked: NameMessage, deadline: float) -> None:
        self.asked, self.deadline = asked, deadline
        kind = SOCK_STREAM if asked.stream else SOCK_DGRAM
        self._sock = socket(AF_INET, kind | SOCK_NONBLOCK | SOCK_CLOEXEC)
        self._unsent = dns.framed(asked.message) if asked.stream else asked.message
        self._read = bytearray()

    def begin(self) -> None:
        """Connect, to the only address there is; raises ``OSError`` if nobody is there."""
        try:
            self._sock.connect(ADDRESS)
        except BlockingIOError:
            pass  # a connection is made; it is writable then
        if not self.asked.stream:
            self._sock.send(self._unsent)
            self._unsent = b""

    def fileno(self) -> int:
        """The socket's descriptor."""
        return self._sock.fileno()

    @property
    def events(self) -> int:
        """What it waits for."""
        return select.POLLOUT if self._unsent else select.POLLIN

    def step(self) -> bytes | None:
        """Do what can be done; the answer once it is there. Raises ``OSError``."""
        try:
            if self._unsent:
                self._unsent = self._unsent[self._sock.send(self._unsent) :]
                return None
            data = self._sock.recv(dns.MAX_SIZE)
        except BlockingIOError:
            return None
        if self.asked.stream:
            if not data:
                raise ConnectionResetError(104, "the resolver hung up")
            self._read += data
            return dns.first(self._read)
        return data if data[:2] == self.asked.message[:2] else None

    def close(self) -> None:
        """Close the socket."""
        self._sock.close()


class Resolver:
    """A thread that asks; owns the descriptor of the namespace. Answers go to ``send``.

    ``send`` may block, and raises ``KataError`` when there is nobody any more to be told.
    """

    def __init__(self, namespace: int, send: Callable[[NameMessage], None]) -> None:
        self._namespace = namespace
        self._send = send
        self._ledger = dns.Ledger()
        self._lock = _thread.allocate_lock()  # around the ledger, and the end
        self._new: deque[NameMessage] = deque()
        self._under_way: dict[int, Exchange] = {}  # by descriptor, oldest first
        self._bucket = Bucket(RATE, BURST, time.monotonic())
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._closing = False
        self._done = _thread.allocate_lock()
        self._done.acquire()
        self._poll = select.poll()
        self._poll.register(self._wake, select.POLLIN)
        _thread.start_new_thread(self._run, ())

    def ask(self, query: NameMessage) -> None:
        """Take a query of the guest's (never blocks). Raises ``ProtocolError``."""
        if not dns.plausible(query.message):
            raise ProtocolError("names: what is asked is no query")
        with self._lock:
            fits = self._ledger.add(query.number, len(query.message), query)
        if not fits:
            raise ProtocolError("names: more is asked at once than was agreed")
        self._new.append(query)
        self._wake_up()

    def stop(self) -> None:
        """Ask nothing any more (never blocks)."""
        self._closing = True
        self._wake_up()

    def close(self) -> None:
        """Stop, and give everything up; any number of times."""
        self.stop()
        if self._done.acquire(timeout=5):
            self._done.release()

    def _wake_up(self) -> None:
        with self._lock:
            if self._wake >= 0:
                os.eventfd_write(self._wake, 1)

    def _run(self) -> None:
        try:
            while not self._closing:
                self._turn()
        except KataError:
            pass  # the guest has gone, and whoever waits for its containers hears of it
        finally:
            for exchange in self._under_way.values():
                exchange.close()
            with self._lock:
                os.close(self._wake)
                self._wake = -1
            os.close(self._namespace)
            self._done.release()

    def _turn(self) -> None:
        pause = self._begin_new()
        for exchange in self._under_way.values():
            pause = min(pause, exchange.deadline - time.monotonic())
            break  # the oldest
        for fd, _ in self._poll.poll(None if pause == _EVER else max(0, int(pause * 1000) + 1)):
            if fd == self._wake:
                os.eventfd_read(fd)
            else:
                self._step(self._under_way[fd])
        now = time.monotonic()
        for exchange in list(self._under_way.values()):
            if exchange.deadline > now:
                break
            self._end(exchange, b"")

    def _begin_new(self) -> float:
        """Begin with what was asked, as fast as is allowed; seconds until one may go on."""
        while self._new:
            pause = self._bucket.take(time.monotonic())
            if pause:
                return pause
            self._begin(self._new.popleft())
        return _EVER

    def _begin(self, query: NameMessage) -> None:
        try:
            with Inside(self._namespace):
                exchange = Exchange(query, time.monotonic() + TIMEOUT_S)
        except OSError:
            self._answer(query, dns.failure(query.message))
            return
        self._under_way[exchange.fileno()] = exchange
        try:
            exchange.begin()
        except OSError:
            self._end(exchange, dns.failure(query.message))
        else:
            self._poll.register(exchange.fileno(), exchange.events)

    def _step(self, exchange: Exchange) -> None:
        try:
            answer = exchange.step()
        except OSError:
            answer = dns.failure(exchange.asked.message)
        if answer is None:
            self._poll.register(exchange.fileno(), exchange.events)
        else:
            self._end(exchange, answer)

    def _end(self, exchange: Exchange, answer: bytes) -> None:
        fd = exchange.fileno()
        del self._under_way[fd]
        try:
            self._poll.unregister(fd)
        except KeyError:
            pass  # it failed at once
        exchange.close()
        self._answer(exchange.asked, answer)

    def _answer(self, query: NameMessage, answer: bytes) -> None:
        with self._lock:
            self._ledger.take(query.number)
        self._send(NameMessage(number=query.number, stream=query.stream, message=answer))
