"""Being told when something changes in a network namespace: a thread around one netlink socket.

The one rule: a burst of changes (an engine that moves a link in, names it, gives it addresses) is
told once, when it is over; no change is ever missed, because the socket listens from its opening.
"""

from __future__ import annotations

import _thread
import os
import select

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from kata.linux.netlink_socket import Rtnetlink

QUIET_S, LONGEST_S = 0.01, 0.2  # without a change until it is told; at most so long after the first


class Watch:
    """Calls ``changed()`` in a thread of its own after each burst of changes; owns the socket."""

    def __init__(self, sock: Rtnetlink, changed: Callable[[], None]) -> None:
        self._sock = sock
        self._changed = changed
        self._stopped, self._stop = os.pipe2(os.O_CLOEXEC)
        self._poll = select.poll()
        self._poll.register(sock, select.POLLIN)
        self._poll.register(self._stopped, select.POLLIN)
        self._ended = _thread.allocate_lock()
        self._ended.acquire()
        _thread.start_new_thread(self._follow, ())

    def _follow(self) -> None:
        try:
            while not self._stopping(None):
                if self._sock.changed():
                    self._until_quiet()
                    self._changed()
        finally:
            self._ended.release()

    def _until_quiet(self) -> None:
        for _ in range(int(LONGEST_S / QUIET_S)):
            if self._stopping(QUIET_S) or not self._sock.changed():
                return

    def _stopping(self, seconds: float | None) -> bool:
        """Wait for anything at most so long; whether it was the wish to stop."""
        ready = self._poll.poll(None if seconds is None else seconds * 1000)
        return any(fd == self._stopped for fd, _ in ready)

    def stop(self) -> None:
        """Call nothing any more; returns when the thread is done with what it was doing."""
        os.close(self._stop)
        self._ended.acquire()
        self._poll.unregister(self._stopped)
        os.close(self._stopped)
        self._sock.close()
