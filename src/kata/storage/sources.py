"""Find what a volume names on the host, once: from then on its descriptor is what counts.

The one rule: a path is resolved exactly once. Whoever may rename things below it later changes
nothing of what the container gets.
"""

from __future__ import annotations

import errno
import os
import stat

from kata.errors import HostError, InvalidInput, NotFound
from kata.wire.record import record

_FLAGS = os.O_PATH | os.O_CLOEXEC


@record
class Source:
    """A file or directory: its real ``path`` (for people) and an O_PATH descriptor of it."""

    path: str
    fd: int
    is_directory: bool

    def close(self) -> None:
        """Give the descriptor back."""
        os.close(self.fd)


def pin(path: str, *, create: bool = False) -> Source:
    """The file or directory at ``path``, symbolic links followed; the caller closes it.

    With ``create`` a directory is made where nothing is, as Docker's ``-v`` does. Raises
    ``InvalidInput``, ``NotFound`` or ``HostError``.
    """
    if not path.startswith("/") or "\0" in path:
        raise InvalidInput(f'volume source "{path}"', why="not an absolute path")
    try:
        fd = _open(path, create=create)
    except FileNotFoundError:
        raise NotFound(f'volume source "{path}"', why="no such file or directory") from None
    except OSError as error:
        raise HostError(f'volume source "{path}"', why=error.strerror or str(error)) from None
    is_directory = stat.S_ISDIR(os.stat(fd).st_mode)
    return Source(os.readlink(f"/proc/self/fd/{fd}"), fd, is_directory)


def version(fd: int) -> str:
    """Where the link leads that kubelet swaps when a configuration changes; "" without one."""
    try:
        return os.readlink("..data", dir_fd=fd)
    except OSError:
        return ""


def _open(path: str, *, create: bool) -> int:
    try:
        return os.open(path, _FLAGS)
    except FileNotFoundError:
        if not create:
            raise
    try:
        os.makedirs(path, 0o755, exist_ok=True)
    except FileExistsError:  # a symbolic link that leads nowhere
        raise OSError(errno.ELOOP, "a symbolic link to nothing") from None
    return os.open(path, _FLAGS)
