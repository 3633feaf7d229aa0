"""A pid on the host for each process that containerd knows: the id of the thread that waits for it.

The rule: no thread is there for the pid alone. Who waits for the end of a process is born before
the process, so that its id can be told, and in the network namespace of the sandbox, so that
``/proc/ID/ns/net`` leads there. Threads are not listed in ``/proc``, but are found there by name.
"""

from __future__ import annotations

import _thread

from kata.errors import HostError
from kata.linux import syscalls as sc

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


class Stand:
    """A thread with an id, which waits to be told what to do, and ends with that.

    ``network`` is the namespace for it to be in.
    """

    def __init__(self, network: int) -> None:
        self._network = network
        self._id, self._why = 0, ""
        self._there, self._go = _thread.allocate_lock(), _thread.allocate_lock()
        self._there.acquire()
        self._go.acquire()
        self._work: Callable[[], None] = _nothing
        _thread.start_new_thread(self._run, ())

    @property
    def pid(self) -> int:
        """Its id, once it is there. Raises ``HostError`` if it cannot be where it has to be."""
        with self._there:
            if self._why:
                raise HostError("cannot enter the sandbox's network namespace", why=self._why)
            return self._id

    def follow(self, work: Callable[[], None]) -> None:
        """Have it see to a process."""
        self._work = work
        self._go.release()

    def dismiss(self) -> None:
        """There is no process: end it; one that follows a process goes on."""
        if self._work is _nothing:
            self._go.release()

    def _run(self) -> None:
        try:
            sc.setns(self._network, sc.CLONE_NEWNET)
        except OSError as error:
            self._why = error.strerror or str(error)
        self._id = _thread.get_native_id()
        self._there.release()
        self._go.acquire()
        self._work()


def _nothing() -> None:
    """What one does that follows no process."""
