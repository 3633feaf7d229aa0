"""Ports of containers at the loopback of the sandbox's namespace on the host, as under runc.

containerd's port forwarding, and whoever else enters the namespace, connects to localhost there.
Each connection is passed on by a stream to the agent, which connects in the guest. The rules: one
thread serves them all and waits for none; the guest gets and gives what the windows allow.
"""

from __future__ import annotations

import _thread
import os
import select
import time
from _socket import SHUT_WR, SO_ERROR, SO_LINGER, SOL_SOCKET, socket

from kata.errors import KataError, ProtocolError
from kata.network.loopback import Loopback
from kata.runtime.rpc import Stream
from kata.wire.agent_api import METHODS, ForwardMessage, ForwardRequest
from kata.wire.flow import MAX_CHUNK
from kata.wire.ttrpc import Connection

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from kata.runtime.rpc import Client
    from kata.wire.ttrpc import Data

MOST = 64  # connections at once, of a sandbox
_METHOD = "Forward"
_BATCH = 16
_PAUSE_S = 0.05  # when there is no descriptor for a connection
_RESET = (1).to_bytes(4, "little") + bytes(4)  # SO_LINGER of no seconds


class Passage(Stream):
    """One connection: the reading thread brings what the guest says, ``step`` does the rest."""

    def __init__(self, client: Client, sock: socket, wake: Callable[[Passage], None]) -> None:
        super().__init__(client, _METHOD, METHODS[_METHOD][1])
        self.fd = sock.fileno()
        self._sock = sock
        self._wake = wake
        self._lock = _thread.allocate_lock()  # around the windows, and what came
        self._inbound = bytearray()
        self._guest_ended = self._shut = self._read_all = False

    def arrived(self, data: Data) -> None:
        """Bytes and grants of the guest's; it ends by its answer."""
        message = ForwardMessage.decode(data.payload)
        with self._lock:
            if self._guest_ended and (message.data or message.end):
                raise ProtocolError("stream: data after its end")
            if message.grant:
                self._send.grant(message.grant)
            self._receive.received(len(message.data))
            self._inbound += message.data
            self._guest_ended = self._guest_ended or message.end
        self._wake(self)

    def finish(self, payload: bytes, error: KataError | None) -> None:
        """The guest has ended the connection."""
        super().finish(payload, error)
        self._wake(self)

    @property
    def gone(self) -> bool:
        """Whether both ends are closed."""
        return self.ended and self.fd < 0

    @property
    def events(self) -> int:
        """What its socket is waited for."""
        if self.fd < 0:
            return 0
        with self._lock:
            wanted = select.POLLOUT if self._inbound else 0
            if not self._read_all and not self.ended and self._send.available:
                wanted |= select.POLLIN
        return wanted

    def step(self, events: int) -> None:
        """Carry what can be carried. Raises ``KataError`` when the guest is gone."""
        if self.fd < 0:
            return
        over = self.ended  # now: what comes meanwhile, its end included, is for the next step
        if over and self._error is not None:
            self.close()
            return
        try:
            self._deliver()
            if events & select.POLLERR and self._sock.getsockopt(SOL_SOCKET, SO_ERROR):
                self.close()
            elif events & (select.POLLIN | select.POLLHUP):
                self._take()
        except OSError:
            self.close()
            return
        if over and not self._inbound:
            self.close()

    def _deliver(self) -> None:
        """Give the socket one chunk: the next is for when others have had their turn."""
        with self._lock:
            chunk = bytes(self._inbound[:MAX_CHUNK])
        if chunk:
            try:
                count = self._sock.send(chunk)
            except BlockingIOError:
                return
            with self._lock:
                del self._inbound[:count]
                grant = self._receive.consumed(count)
            if grant:
                self._say(ForwardMessage(grant=grant))
        with self._lock:  # what came with the end came before it
            over = self._guest_ended and not self._inbound and not self._shut
        if over:
            self._shut = True
            self._sock.shutdown(SHUT_WR)

    def _take(self) -> None:
        with self._lock:
            wanted = min(self._send.available, MAX_CHUNK)
        if self._read_all or self.ended or not wanted:
            return
        try:
            data = self._sock.recv(wanted)
        except BlockingIOError:
            return
        with self._lock:
            self._send.take(len(data))
        self._read_all = not data
        self._say(ForwardMessage(data=data, end=not data))

    def _say(self, message: ForwardMessage) -> None:
        if not self.ended:
            self._client.send(Connection.data(self.number, message.encode()))

    def close(self) -> None:
        """Close the socket, by a reset if not all was said; the guest's end goes with it."""
        if self.fd < 0:
            return
        self.fd = -1
        if not (self._read_all and self._shut):
            try:
                self._sock.setsockopt(SOL_SOCKET, SO_LINGER, _RESET)
            except OSError:
                pass
        self._sock.close()
        super().close()


class Forwarder:
    """A thread that passes connections on, until ``close``.

    ``namespace`` is a descriptor, which stays the caller's. Raises ``HostError``.
    """

    def __init__(self, client: Client, namespace: int) -> None:
        self._client = client
        self._loopback = Loopback(namespace)
        self._passages: dict[Passage, int] = {}  # and the descriptor that is polled, or -1
        self._by_fd: dict[int, Passage] = {}
        self._lock = _thread.allocate_lock()  # around what was woken, and the end
        self._woken: set[Passage] = set()
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._closing = False
        self._done = _thread.allocate_lock()
        self._done.acquire()
        self._poll = select.poll()
        self._poll.register(self._wake, select.POLLIN)
        self._listeners = {sock.fileno(): sock for sock in self._loopback.listeners}
        for fd in self._listeners:
            self._poll.register(fd, select.POLLIN)
        _thread.start_new_thread(self._run, ())

    def close(self) -> None:
        """End all connections, and steer nobody any more; any number of times."""
        self._closing = True
        self._wake_up(None)
        if self._done.acquire(timeout=5):
            self._done.release()

    def _wake_up(self, passage: Passage | None) -> None:
        with self._lock:
            if self._wake >= 0:
                if passage is not None:
                    self._woken.add(passage)
                os.eventfd_write(self._wake, 1)

    def _run(self) -> None:
        try:
            while not self._closing:
                for fd, events in self._poll.poll():
                    self._handle(fd, events)
        except KataError:
            pass  # the guest has gone, and whoever waits for its containers hears of it
        finally:
            self._loopback.close()
            for passage in list(self._passages):
                try:
                    passage.close()
                except KataError:
                    pass
            with self._lock:
                os.close(self._wake)
                self._wake = -1
            self._done.release()

    def _handle(self, fd: int, events: int) -> None:
        if fd == self._wake:
            with self._lock:
                os.eventfd_read(fd)
                woken, self._woken = self._woken, set()
            for passage in woken:
                self._step(passage, 0)
        elif fd in self._listeners:
            for _ in range(_BATCH):
                if not self._accept(self._listeners[fd]):
                    break
        elif fd in self._by_fd:  # else it was closed by what came before in this batch
            self._step(self._by_fd[fd], events)

    def _accept(self, listener: socket) -> bool:
        """Take a connection; whether there was one."""
        try:
            fd, _ = listener._accept()  # type: ignore[attr-defined]
        except BlockingIOError:
            return False
        except OSError:
            time.sleep(_PAUSE_S)
            return False
        sock = socket(fileno=fd)
        sock.setblocking(False)
        if len(self._passages) >= MOST:
            sock.setsockopt(SOL_SOCKET, SO_LINGER, _RESET)
            sock.close()
            return True
        passage = Passage(self._client, sock, self._wake_up)
        self._passages[passage] = -1
        self._client.open(passage, ForwardRequest(port=sock.getsockname()[1]))
        self._step(passage, 0)
        return True

    def _step(self, passage: Passage, events: int) -> None:
        """Let one go on, and wait for what it wants next."""
        if passage not in self._passages:
            return
        passage.step(events)
        polled, wanted = self._passages[passage], passage.events
        if polled >= 0 and not wanted:
            self._poll.unregister(polled)
            del self._by_fd[polled]
            polled = -1
        elif wanted:
            polled = passage.fd
            self._poll.register(polled, wanted)
            self._by_fd[polled] = passage
        if passage.gone:
            del self._passages[passage]
        else:
            self._passages[passage] = polled
