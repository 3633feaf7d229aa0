"""Pumps between host descriptors and the standard streams of a process in the guest.

One thread per stream, blocking: what the reader of our output does not take stays, by way of the
window, in the container's pipe, so back pressure reaches the process and no other stream.
"""

from __future__ import annotations

import _thread
import os
import select
from errno import ECONNRESET, EIO, EPIPE

from kata.errors import KataError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from kata.runtime.rpc import Stream
    from kata.runtime.streamlog import StreamLog


_NOBODY_READS = (EPIPE, ECONNRESET, EIO)  # EIO: of a terminal that was closed


class OutputPump:
    """Carries stdout or stderr of a process to a descriptor (owned) and to a log, if any.

    When nobody reads the descriptor any more, the process gets what it would get from a pipe of
    its own: its next write fails.
    """

    def __init__(
        self,
        stream: Stream,
        fd: int,
        *,
        log: StreamLog | None = None,
        kind: str = "stdout",
        on_first: Callable[[], None] | None = None,
    ) -> None:
        self._stream = stream
        self._fd = fd
        self._log = log
        self._kind = kind
        self._on_first = on_first
        self.failure = ""  # why not all of it was delivered; empty when nobody wanted it any more
        self._done = _thread.allocate_lock()
        self._done.acquire()
        _thread.start_new_thread(self._run, ())

    def _run(self) -> None:
        try:
            while data := self._stream.read():
                if self._on_first is not None:
                    self._on_first()
                    self._on_first = None
                self._deliver(data)
                self._stream.consumed(len(data))
        except KataError:
            pass  # the connection is gone, and whoever waits for the process hears of it
        finally:
            self._close()
            self._done.release()

    def _deliver(self, data: bytes) -> None:
        if self._log is not None:
            self._log.write(self._kind, data)
        if self._fd < 0:
            return
        try:
            write_all(self._fd, data)
        except OSError as error:
            if error.errno not in _NOBODY_READS:
                self.failure = error.strerror or str(error)
            self._close()
            self._stream.close()

    def _close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def wait(self, timeout: float = -1) -> bool:
        """Wait until everything the process wrote was delivered."""
        if not self._done.acquire(timeout=timeout):
            return False
        self._done.release()
        return True


class InputPump:
    """Carries a descriptor (owned) to stdin of a process, until its end or the process's."""

    def __init__(self, stream: Stream, fd: int) -> None:
        self._stream = stream
        self._fd = fd
        self._wake = os.eventfd(0, os.EFD_CLOEXEC)
        self._closing = _thread.allocate_lock()
        self._done = _thread.allocate_lock()
        self._done.acquire()
        stream.on_end = self.stop
        _thread.start_new_thread(self._run, ())

    def _run(self) -> None:
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        poll.register(self._wake, select.POLLIN)
        try:
            while room := self._stream.room():
                if any(fd == self._wake for fd, _ in poll.poll()):
                    break
                data = os.read(self._fd, room)
                if not data:
                    self._stream.close()
                    break
                self._stream.write(data)
        except (KataError, OSError):
            pass  # the process is gone or its stdin is; its exit is reported elsewhere
        finally:
            os.close(self._fd)
            self._done.release()

    def stop(self) -> None:
        """Read no more; nothing after ``finish``."""
        with self._closing:
            if self._wake >= 0:
                os.eventfd_write(self._wake, 1)

    def finish(self, timeout: float = 5) -> None:
        """Stop, and give up the descriptor."""
        self.stop()
        if self._done.acquire(timeout=timeout):
            self._done.release()
            with self._closing:
                if self._wake >= 0:
                    os.close(self._wake)
                    self._wake = -1


def write_all(fd: int, data: bytes) -> None:
    """Write everything, waiting where the descriptor is non-blocking; raises ``OSError``."""
    while data:
        try:
            count = os.write(fd, data)
        except BlockingIOError:
            poll = select.poll()
            poll.register(fd, select.POLLOUT)
            poll.poll()
            continue
        if count == len(data):
            return
        data = data[count:]
