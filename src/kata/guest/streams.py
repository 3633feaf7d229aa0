"""Standard streams: a pipe or terminal of a process on one side, a stream to the host on the other.

The rule: a process's output is read only while the host has granted room for it, so it waits in
the process's own pipe; and what it wrote before it ended is delivered before the end is.
"""

from __future__ import annotations

import os
from _collections import deque
from fcntl import fcntl, ioctl
from select import EPOLLERR, EPOLLHUP, EPOLLIN, EPOLLOUT

from kata.errors import WrongState
from kata.wire.agent_api import StreamResponse
from kata.wire.flow import MAX_CHUNK, WINDOW, ReceiveWindow, SendWindow
from kata.wire.ttrpc import HEADER, Connection

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from kata.guest.channel import Channel
    from kata.guest.loop import Loop
    from kata.wire.ttrpc import Data

_FIONREAD, _EIO = 0x541B, 5
_F_SETPIPE_SZ = 1031  # fcntl(2)
_PIECE = MAX_CHUNK - HEADER.size  # a frame of it is two writes of the most that a port takes
_TERMINAL_REST = 64 << 10  # a terminal buffers less than this


class Stream:
    """What both directions share: the descriptor (owned) and the stream to the host."""

    def __init__(self, loop: Loop, fd: int) -> None:
        self._loop, self._fd = loop, fd
        self._channel: Channel | None = None
        self._number = 0
        self._count = 0

    @property
    def closed(self) -> bool:
        """Whether nothing more will pass."""
        return self._fd < 0

    def open(self, channel: Channel, number: int) -> None:
        """The host opened the stream. Raises ``WrongState`` if it is open already."""
        if self._channel is not None and not self._channel.closed:
            raise WrongState("the stream is open already")
        self._channel, self._number, self._count = channel, number, 0
        channel.streams[number] = self
        self._begin()

    def _begin(self) -> None:
        raise NotImplementedError

    def received(self, data: Data) -> None:
        """A data frame of the host."""
        raise NotImplementedError

    def detach(self) -> None:
        """The host is gone: keep the descriptor for the next one."""
        if self._fd >= 0:
            self._loop.forget(self._fd)
        self._channel = None

    def close(self) -> None:
        """Close the descriptor and end the stream."""
        if self._fd >= 0:
            self._loop.forget(self._fd)
            os.close(self._fd)
            self._fd = -1
        self._end()

    def _end(self) -> None:
        channel, self._channel = self._channel, None
        if channel is not None:
            channel.streams.pop(self._number, None)
            answer = Connection.respond(self._number, StreamResponse(count=self._count).encode())
            channel.data(Connection.data(self._number, b"", close=True) + answer)


class Output(Stream):
    """Standard output or error, or the output of a terminal."""

    def __init__(self, loop: Loop, fd: int, *, terminal: bool) -> None:
        super().__init__(loop, fd)
        self._terminal = terminal
        self._window = SendWindow()
        self._left: int | None = None  # bytes to deliver until the end, once that is known
        self.on_first: Callable[[], None] | None = None  # called when something was read
        self.on_refused: Callable[[], None] | None = None  # called when the host wants no more
        self._queued = False

    def watch(self) -> None:
        """Watch the descriptor before the host opens the stream, to be the quicker then."""
        self._loop.watch(self._fd, EPOLLIN, self._readable)

    def _begin(self) -> None:
        self._window = SendWindow()
        if self._fd < 0:
            self._end()
        else:
            self._resume()

    def received(self, data: Data) -> None:
        """More room was granted, or the host wants no more."""
        if data.payload:
            self._window.grant(data.payload)
            self._resume()
        if data.closed:
            self.close()
            if self.on_refused is not None:
                self.on_refused()

    def ending(self) -> None:
        """The process ended, though others may hold its output: deliver what is there, and end."""
        if self._fd < 0:
            return
        if self._terminal:
            self._left = _TERMINAL_REST
        else:
            self._left = int.from_bytes(ioctl(self._fd, _FIONREAD, bytes(4)), "little")
        if self._channel is not None:
            self._resume()

    def _resume(self) -> None:
        if self._left == 0:
            self.close()
        elif self._fd >= 0 and self._window.available and not self._queued:
            if self._left is None:
                self._loop.watch(self._fd, EPOLLIN, self._readable)
            else:
                self._readable(0)

    def _readable(self, _events: int) -> None:
        channel = self._channel
        if self._fd < 0 or self._queued:
            return
        if channel is None:
            self._loop.forget(self._fd)  # the host's opening resumes
            return
        if not self._window.available:
            self._loop.forget(self._fd)  # a grant resumes
        elif not channel.has_room():
            self._loop.forget(self._fd)
            self._queued = True
            channel.when_room(self._room)
        else:
            self._carry(channel)

    def _room(self) -> None:
        self._queued = False
        self._readable(0)
        self._resume()

    def _carry(self, channel: Channel) -> None:
        wanted = min(self._window.available, _PIECE)
        if self._left is not None:
            wanted = min(wanted, self._left)
        try:
            data = os.read(self._fd, wanted)
        except BlockingIOError:
            if self._left is not None:
                self.close()
            return
        except OSError as error:
            if error.errno != _EIO:  # what a terminal says once nobody has it open
                raise
            data = b""
        if not data:
            self.close()
            return
        self._window.take(len(data))
        self._count += len(data)
        channel.data(Connection.data(self._number, data))
        if self.on_first is not None:
            self.on_first()
        if self._left is not None:
            self._left -= len(data)
            self._resume()


class Input(Stream):
    """Standard input, or the input of a terminal."""

    def __init__(self, loop: Loop, fd: int, *, terminal: bool) -> None:
        super().__init__(loop, fd)
        self._terminal = terminal
        self._window = ReceiveWindow()
        self._pending: deque[bytes] = deque()
        self._closing = False
        self._wide = False

    def _begin(self) -> None:
        self._window = ReceiveWindow()
        self._closing = False
        if self._fd < 0:
            self._end()
        else:
            self._loop.watch(self._fd, 0, self._writable)

    def received(self, data: Data) -> None:
        """Input for the process, or the end of it."""
        if data.payload:
            self._window.received(len(data.payload))
            self._pending.append(data.payload)
        self._closing = self._closing or data.closed
        self._write()

    def _widen(self) -> None:
        """Let the pipe hold a whole window: more than it held was there to be written."""
        if not self._wide and not self._terminal:
            self._wide = True
            try:
                fcntl(self._fd, _F_SETPIPE_SZ, WINDOW)
            except OSError:
                pass  # it stays as it is: no more than the speed depends on it

    def _writable(self, events: int) -> None:
        if self._fd >= 0 and events & (EPOLLERR | EPOLLHUP):  # the reader went away
            self.close()
        elif self._pending:
            self._write()

    def _write(self) -> None:
        channel = self._channel
        if self._fd < 0 or channel is None:
            return
        try:
            while self._pending:
                data = self._pending.popleft()
                written = os.write(self._fd, data)
                if written < len(data):
                    self._pending.appendleft(data[written:])
                self._count += written
                grant = self._window.consumed(written)
                if grant:
                    channel.answer(Connection.data(self._number, grant))
        except BlockingIOError:
            self._pending.appendleft(data)
            self._widen()
            self._loop.watch(self._fd, EPOLLOUT, self._writable)
            return
        except OSError:  # EPIPE, or EIO of a terminal: nobody reads any more
            self.close()
            return
        if not self._closing:
            self._loop.watch(self._fd, 0, self._writable)
        elif self._terminal:
            self._loop.forget(self._fd)
            self._end()
        else:
            self.close()
