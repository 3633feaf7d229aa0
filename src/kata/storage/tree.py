"""Reading a directory of configuration: all of it at once, by descriptors, within bounds.

The one rule: the directory may change meanwhile and may be another's; no link is followed, nothing
but regular files is opened, and what is larger than a configuration is none.
"""

from __future__ import annotations

import os
from _stat import S_ISDIR, S_ISLNK, S_ISREG

from kata.wire.agent_api import Node

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

MOST_BYTES = 1 << 20  # of all copies of a container, at its creation
MOST_LATER = 2 << 20  # of one copy; the agent's messages end at 4 MiB
_MOST_NODES, _MOST_DEPTH, _LONGEST_NAME = 256, 8, 240
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_LOOK = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC


class TooMuch(Exception):
    """A tree that is not to be copied: too large, or with other things than files in it."""


def size(nodes: tuple[Node, ...]) -> int:
    """How many bytes the contents of a tree have."""
    return sum(len(node.content) for node in nodes)


def read(
    fd: int, most_bytes: int, entered: Callable[[int], None] = lambda _fd: None
) -> tuple[Node, ...]:
    """What is in a directory (by an O_PATH descriptor), parents first.

    ``entered`` is called with each directory before it is read. Raises ``TooMuch``, and
    ``OSError`` if it changes meanwhile.
    """
    reader = _Reader(most_bytes, entered, os.fstat(fd).st_dev)
    top = os.open(".", _DIRECTORY, dir_fd=fd)
    try:
        reader.directory(top, "", 0)
    finally:
        os.close(top)
    return tuple(reader.nodes)


class _Reader:
    def __init__(self, room: int, entered: Callable[[int], None], device: int) -> None:
        self.nodes: list[Node] = []
        self._room = room
        self._entered = entered
        self._device = device

    def directory(self, fd: int, path: str, depth: int) -> None:
        """Add a directory and what is below it."""
        if depth > _MOST_DEPTH:
            raise TooMuch
        self._entered(fd)
        self._add(path, os.fstat(fd), b"")
        names = []
        with os.scandir(fd) as entries:
            for entry in entries:
                names.append(entry.name)
                if len(names) > _MOST_NODES:
                    raise TooMuch
        for name in sorted(names):
            if len(os.fsencode(name)) > _LONGEST_NAME or not name.isprintable():
                raise TooMuch  # also of a name that is no UTF-8
            looked = os.open(name, _LOOK, dir_fd=fd)
            try:
                self._entry(looked, f"{path}/{name}" if path else name, depth)
            finally:
                os.close(looked)

    def _entry(self, looked: int, path: str, depth: int) -> None:
        status = os.fstat(looked)
        if S_ISDIR(status.st_mode):
            below = os.open(".", _DIRECTORY, dir_fd=looked)
            try:
                self.directory(below, path, depth + 1)
            finally:
                os.close(below)
        elif S_ISLNK(status.st_mode):
            self._add(path, status, os.fsencode(os.readlink("", dir_fd=looked)))
        elif S_ISREG(status.st_mode):
            self._add(path, status, self._content(looked))
        else:
            raise TooMuch

    def _content(self, looked: int) -> bytes:
        fd = os.open(f"/proc/self/fd/{looked}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            content = b""
            while data := os.read(fd, self._room - len(content) + 1):
                content += data
                if len(content) > self._room:
                    raise TooMuch
            return content
        finally:
            os.close(fd)

    def _add(self, path: str, status: os.stat_result, content: bytes) -> None:
        self._room -= len(content)
        if self._room < 0 or len(self.nodes) >= _MOST_NODES or status.st_dev != self._device:
            raise TooMuch
        times = status.st_mtime_ns if S_ISREG(status.st_mode) else 0
        self.nodes.append(
            Node(
                path=path, mode=status.st_mode, uid=status.st_uid, gid=status.st_gid,
                mtime_ns=times, content=content,
            )
        )  # fmt: skip
