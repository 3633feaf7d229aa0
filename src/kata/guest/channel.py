"""The connection to the host: one port, many streams, one bounded queue of output.

The rule: answers go first, and data of standard streams is only taken from a process when there
is room in the queue; whoever waits for room gets it in turn. So a flood delays no answer, and
no stream starves another.
"""

from __future__ import annotations

import os
from _collections import deque
from select import EPOLLIN, EPOLLOUT

from kata.wire.ttrpc import Connection

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from kata.guest.forward import Forward
    from kata.guest.loop import Loop
    from kata.guest.resolver import Resolver
    from kata.guest.streams import Stream
    from kata.wire.ttrpc import Event

MAX_REQUEST = 8 << 20  # a container's specification and its files
_ROOM = 128 << 10  # bytes of stream data queued before processes are made to wait
_TURN = 32 << 10  # bytes of it that go in one write, or a frame: as much as the driver takes
_READ, _PAGE = 64 << 10, 4096  # at once; a virtio port gives a page at a time


class Channel:
    """Frames to and from the host over a non-blocking descriptor."""

    def __init__(self, loop: Loop, fd: int, on_event: Callable[[Event], None]) -> None:
        self._loop, self._fd, self._on_event = loop, fd, on_event
        self._connection = Connection(max_message=MAX_REQUEST)
        self._answers: deque[bytes] = deque()
        self._data: deque[bytes] = deque()
        self._data_size = 0
        self._rest: memoryview[int] | bytes = b""
        self._blocked = False  # the host takes no more for now
        self._armed = False  # we are told when it does
        self._waiting: deque[Callable[[], None]] = deque()
        self._arrived = memoryview(bytearray(_READ))
        self._pages = [self._arrived[at : at + _PAGE] for at in range(0, _READ, _PAGE)]
        self.streams: dict[int, Stream | Resolver | Forward] = {}  # that are open, by their number
        self.closed = False
        os.set_blocking(fd, False)
        loop.watch(fd, EPOLLIN, self._ready)

    def answer(self, data: bytes) -> None:
        """Queue an answer or a grant."""
        self._answers.append(data)

    def data(self, data: bytes) -> None:
        """Queue stream data (and a stream's end, which must not overtake it)."""
        self._data.append(data)
        self._data_size += len(data)

    def has_room(self) -> bool:
        """Whether more stream data may be queued now."""
        return self._data_size < _ROOM

    def when_room(self, callback: Callable[[], None]) -> None:
        """Call back, once and in turn, when there is room for stream data."""
        self._waiting.append(callback)

    def close(self) -> None:
        """Forget the descriptor (which stays open)."""
        self._loop.forget(self._fd)
        self.closed = True

    def _ready(self, events: int) -> None:
        if events & EPOLLOUT:
            self._blocked = False
            self.flush()
        if events & ~EPOLLOUT:
            self._read()

    def _read(self) -> None:
        """Take what there is, up to a bound: a virtio port gives a page at a time."""
        size = 0
        while size < _READ:
            try:
                count = os.readv(self._fd, self._pages[size // _PAGE :])
            except BlockingIOError:
                break
            except ConnectionResetError:
                count = 0
            if not count:
                self.closed = True
                break
            size += count
            if size % _PAGE:
                break
        for event in self._connection.receive(self._arrived[:size]) if size else ():
            self._on_event(event)
        if self.closed:
            self._loop.forget(self._fd)
            self._loop.stop()

    def flush(self) -> None:
        """Write as much as the host takes; called after every batch of events."""
        while not self._blocked and not self.closed:
            if not self._rest and not self._next():
                break
            try:
                self._rest = memoryview(self._rest)[os.write(self._fd, self._rest) :]
            except BlockingIOError:
                self._blocked = self._armed = True
                self._loop.watch(self._fd, EPOLLIN | EPOLLOUT, self._ready)
                return
            except (BrokenPipeError, ConnectionResetError):
                self.closed = True
                self._loop.forget(self._fd)
                self._loop.stop()
                return
        if self._armed and not self._blocked and not self.closed:
            self._armed = False
            self._loop.watch(self._fd, EPOLLIN, self._ready)

    def _next(self) -> bool:
        """Take the next bytes to write: all answers, then frames of data; each write costs."""
        parts = list(self._answers)
        self._answers.clear()
        size = 0
        while self._data and size < _TURN:
            frame = self._data.popleft()
            self._data_size -= len(frame)
            size += len(frame)
            parts.append(frame)
        self._rest = b"".join(parts)
        if size:
            self._give_room()
        return bool(parts)

    def _give_room(self) -> None:
        for _ in range(len(self._waiting)):
            if not self.has_room():
                return
            self._waiting.popleft()()
