"""The event loop of the agent: descriptors by epoll(7), children by SIGCHLD; one thread.

Every callback returns soon and none blocks. Spurious calls are allowed: a callback reads or
writes without blocking and finds nothing to do.
"""

from __future__ import annotations

import _signal
import os
from select import EPOLLIN, epoll

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Handler = Callable[[int], None]
    ExitHandler = Callable[[int], None]

_BATCH = 64


class Loop:
    """Calls handlers when descriptors are ready, and when children ended."""

    def __init__(self) -> None:
        self._epoll = epoll()
        self._handlers: dict[int, Handler] = {}
        self._events: dict[int, int] = {}
        self._children: dict[int, ExitHandler] = {}
        self._after: Callable[[], None] | None = None
        self._last: list[Callable[[], None]] = []
        self._next: list[Callable[[], None]] = []
        self._running = True
        self._woken, wake = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        _signal.signal(_signal.SIGCHLD, lambda *_: None)
        _signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        self.watch(self._woken, EPOLLIN, self._reap)

    def watch(self, fd: int, events: int, handler: Handler) -> None:
        """Call ``handler`` with the events that ``fd`` has; replaces what was asked before."""
        known = self._events.get(fd)
        if known is None:
            self._epoll.register(fd, events)
        elif known != events:
            self._epoll.modify(fd, events)
        self._events[fd] = events
        self._handlers[fd] = handler

    def forget(self, fd: int) -> None:
        """Call no handler for ``fd`` any more; to be done before it is closed."""
        if self._handlers.pop(fd, None) is not None:
            del self._events[fd]
            self._epoll.unregister(fd)

    def on_exit(self, pid: int, handler: ExitHandler) -> None:
        """Call ``handler`` once, with the wait status, when the child ended."""
        self._children[pid] = handler

    def after_each(self, callback: Callable[[], None]) -> None:
        """Call this after every batch of handlers: the place to write what they collected."""
        self._after = callback

    def at_last(self, callback: Callable[[], None]) -> None:
        """Call this once, at the very end of this batch: what wakes or makes another process."""
        self._last.append(callback)

    def next_time(self, callback: Callable[[], None]) -> None:
        """Call this once, at the end of the batch after this one: what nobody waits for."""
        self._next.append(callback)

    def stop(self) -> None:
        """Let ``run`` return after the handlers of this batch."""
        self._running = False

    def run(self) -> None:
        """Serve until ``stop``."""
        self._running = True
        while self._running:
            due, self._next = self._next, []
            for fd, events in self._epoll.poll(-1, _BATCH):
                handler = self._handlers.get(fd)
                if handler is not None:
                    handler(events)
            if self._after is not None:
                self._after()
            due += self._last
            self._last = []
            for callback in due:
                callback()
            if due and self._after is not None:
                self._after()  # what they had to say

    def _reap(self, _events: int) -> None:
        """Take the status of every child that ended; orphans are only taken note of."""
        try:
            os.read(self._woken, 4096)
        except BlockingIOError:
            pass
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            handler = self._children.pop(pid, None)
            if handler is not None:
                handler(status)
