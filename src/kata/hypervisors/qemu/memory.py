"""How QEMU gets the file that is its guest's memory.

The one rule: QEMU opens it for reading and writing, by path, and yet never holds a template's file
but read-only: the call is intercepted and answered with the descriptor of our choice. Where the
kernel cannot do that, QEMU sees a file in its root instead: a copy of its own.
"""

from __future__ import annotations

import os

from kata.errors import HostError
from kata.hypervisors.qemu.arguments import MEMORY_PATH
from kata.linux import seccomp_notify, sparse
from kata.linux.confine import Bind

_ENOENT = 2

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kata.hypervisors.interface import Bindings, Options
    from kata.linux.confine import Process


class Memory:
    """The memory of one start."""

    def __init__(self, bindings: Bindings, options: Options) -> None:
        """Raises ``HostError`` if a copy is needed and cannot be made."""
        self._memory, self._source = bindings.memory, bindings.memory_source
        self._copy = ""
        self.bind: tuple[Bind, ...] = ()
        self.intercepted = self._memory >= 0 and seccomp_notify.available()
        if self._memory >= 0 and not self.intercepted:
            self._show(options)

    def _show(self, options: Options) -> None:
        """Make the memory visible in QEMU's root, writable by its user."""
        path = os.readlink(f"/proc/self/fd/{self._memory}")
        try:
            if self._source >= 0 or _read_only(self._memory):
                path = self._copy = f"{options.scratch}/memory"
                self._copied(path)
            os.chown(path, options.uid, options.uid)
        except OSError as error:
            self.done()
            raise HostError(
                "cannot copy the template's memory", why=error.strerror or str(error),
                hint=f'free some space in "{options.scratch}"',
            ) from None  # fmt: skip
        self.bind = (Bind(path, MEMORY_PATH, readonly=False),)

    def _copied(self, path: str) -> None:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            sparse.copy(self._source if self._source >= 0 else self._memory, fd)
        finally:
            os.close(fd)
        self._source = -1

    def fill(self) -> None:
        """Copy the template's memory, while QEMU comes up and until it asks for it."""
        if self._source < 0:
            return
        try:
            sparse.copy(self._source, self._memory)
        except OSError as error:
            raise HostError("cannot copy the template's memory", why=str(error)) from None

    def give(self, process: Process) -> None:
        """Answer an intercepted call. Raises ``HostError``."""
        try:
            seccomp_notify.answer(process.listener, {MEMORY_PATH: self._memory})
        except OSError as error:
            # ENOENT: whoever asked is ending, which the wait for its end reports
            if error.errno != _ENOENT and process.poll() is None:
                raise HostError("cannot hand QEMU its memory", why=str(error)) from None

    def done(self) -> None:
        """QEMU has it open: a copy needs no name any more."""
        if self._copy:
            try:
                os.unlink(self._copy)
            except FileNotFoundError:
                pass
            self._copy = ""


def _read_only(fd: int) -> bool:
    from fcntl import F_GETFL, fcntl

    return fcntl(fd, F_GETFL) & os.O_ACCMODE == os.O_RDONLY
