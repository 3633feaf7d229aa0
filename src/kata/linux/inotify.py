"""inotify(7): being told of changes below directories."""

from __future__ import annotations

import ctypes
import os

from kata.linux.syscalls import libc

_CLOEXEC, _NONBLOCK = 0o2000000, 0o4000
# modified, attributes, closed after writing, moved from and to, created, deleted; a directory
_CHANGES = 0x2 | 0x4 | 0x8 | 0x40 | 0x80 | 0x100 | 0x200 | 0x01000000
_BUFFER = 1 << 16


def open_watch() -> int:
    """A descriptor that is readable once something has changed. Raises ``OSError``."""
    return _check(libc.inotify_init1(_CLOEXEC | _NONBLOCK), "inotify_init1")


def add(watch: int, directory: int) -> None:
    """Watch a directory (by a descriptor) and what it has; again is no harm. Raises ``OSError``."""
    path = f"/proc/self/fd/{directory}".encode()
    _check(libc.inotify_add_watch(watch, path, ctypes.c_uint32(_CHANGES)), "inotify_add_watch")


def drain(watch: int) -> bool:
    """Forget what has been told; whether there was anything."""
    found = False
    try:
        while os.read(watch, _BUFFER):
            found = True
    except BlockingIOError:
        pass
    return found


def _check(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)
    return result
