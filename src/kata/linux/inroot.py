"""Opening and making paths inside a directory that may hold hostile symbolic links.

The rule: every path is resolved by openat2(2) with RESOLVE_IN_ROOT, so a link, however it is
changed meanwhile, can only lead to somewhere inside the root.
"""

from __future__ import annotations

import os
from _stat import S_ISREG

from kata.errors import GuestError
from kata.linux.syscalls import RESOLVE_IN_ROOT, RESOLVE_NO_MAGICLINKS, openat2

_RESOLVE = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS
_ENOENT, _EINVAL, _MAX_LINKS = 2, 22, 40


def open_path(root: int, path: str, flags: int = 0) -> int:
    """An ``O_PATH`` descriptor of ``path`` inside the directory ``root``."""
    return openat2(root, path, os.O_PATH | flags, 0, _RESOLVE)


def make_directory(root: int, path: str, mode: int = 0o755) -> int:
    """Make a directory with its parents; an ``O_PATH`` descriptor of it."""
    return _make(root, path, mode, _MAX_LINKS)


def make_file(root: int, path: str, mode: int = 0o644) -> int:
    """Make an empty file, unless anything is there; an ``O_PATH`` descriptor of it."""
    try:
        return open_path(root, path)
    except OSError as error:
        if error.errno != _ENOENT:
            raise
    head, name = os.path.split(path.rstrip("/"))
    parent = make_directory(root, head or "/")
    try:
        target = _link_target(parent, name, head)
        if target:
            return make_file(root, target, mode)
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
        os.close(os.open(name, flags, mode, dir_fd=parent))
        return os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    finally:
        os.close(parent)


def _make(root: int, path: str, mode: int, links: int) -> int:
    try:
        return open_path(root, path, os.O_DIRECTORY)
    except OSError as error:
        if error.errno != _ENOENT:
            raise
    if not links:
        raise GuestError(f'cannot make "{path}" in the container', why="too many symbolic links")
    head, name = os.path.split(path.rstrip("/"))
    if name in ("", ".", ".."):  # of what is not there, ".." is known by name alone
        head = os.path.dirname(head) if name == ".." else head
        return _make(root, head or "/", mode, links - 1)
    parent = _make(root, head or "/", mode, links - 1)
    try:
        target = _link_target(parent, name, head)
        if target:
            return _make(root, target, mode, links - 1)
        try:
            os.mkdir(name, mode, dir_fd=parent)
        except FileExistsError:
            pass  # made meanwhile: opened with the same care below
        return os.open(
            name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent
        )
    finally:
        os.close(parent)


def _link_target(parent: int, name: str, head: str) -> str:
    """Where the (dangling) link ``name`` leads, as a path in the root; "" if it is no link."""
    try:
        target = os.readlink(name, dir_fd=parent)
    except OSError:
        return ""
    return target if target.startswith("/") else f"{head}/{target}"


def text_of(fd: int) -> str:
    """A path that names an open descriptor; mount(2) follows it to the file itself."""
    return f"/proc/self/fd/{fd}"


def write_file(root: int, path: str, content: bytes, mode: int) -> None:
    """Make a file or replace its content; raises ``OSError`` if something else is there."""
    fd = _open_regular(root, path, mode)
    try:
        while content:
            content = content[os.write(fd, content) :]
        os.fchmod(fd, mode)
    finally:
        os.close(fd)


def _open_regular(root: int, path: str, mode: int) -> int:
    """An emptied or new regular file; a device or fifo in its place is not waited for."""
    flags = os.O_WRONLY | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK
    try:
        fd = openat2(root, path, flags, 0, _RESOLVE)
    except OSError as error:
        if error.errno != _ENOENT:
            raise OSError(_EINVAL, "not a regular file", path) from None
        os.close(make_file(root, path, mode))
        fd = openat2(root, path, flags, 0, _RESOLVE)
    if S_ISREG(os.fstat(fd).st_mode):
        os.ftruncate(fd, 0)
        return fd
    os.close(fd)
    raise OSError(_EINVAL, "not a regular file", path)
