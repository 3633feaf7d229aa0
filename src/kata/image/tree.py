"""A directory tree that is written as root on behalf of somebody who is not trusted.

The one rule: every path is resolved by the kernel as if the tree's root were ``/`` (openat2,
RESOLVE_IN_ROOT), or component by component below a descriptor, and the last component is never
followed; so no name, link or order of entries reaches anything outside.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat

from kata.errors import ImageError
from kata.linux.syscalls import RESOLVE_IN_ROOT, RESOLVE_NO_MAGICLINKS, RESOLVE_NO_XDEV, openat2

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Self

_RESOLVE = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_XDEV
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY
_MOST_LINKS = 40


class Tree:
    """A tree below an existing empty directory; a context manager that holds descriptors."""

    def __init__(self, path: str) -> None:
        self.root = os.open(path, _DIRECTORY | os.O_CLOEXEC)
        self._held: tuple[str, ...] = ()
        self._fd = os.dup(self.root)
        self.implied: list[tuple[str, ...]] = []  # directories made because something needed them

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)
        os.close(self.root)

    def parent(self, path: tuple[str, ...], *, create: bool = True) -> int:
        """A descriptor of the directory a path is in, good until the next call.

        Links on the way are followed inside the tree. Missing directories are made with
        ``create``, else there is a ``FileNotFoundError``.
        """
        directory = path[:-1]
        if directory != self._held:
            fd = self._open(directory, create=create)
            os.close(self._fd)
            self._fd, self._held = fd, directory
        return self._fd

    def forget(self) -> None:
        """Resolve anew at the next call: something on the way may have been replaced."""
        os.close(self._fd)
        self._fd, self._held = os.dup(self.root), ()

    def _open(self, directory: tuple[str, ...], *, create: bool) -> int:
        name = "/".join(directory)
        try:
            return openat2(self.root, name or ".", _DIRECTORY, 0, _RESOLVE)
        except FileNotFoundError:
            if not create:
                raise
        except OSError as error:
            raise _refused(name, error) from None
        return self._make(directory)

    def _make(self, directory: tuple[str, ...]) -> int:
        """Make what is missing of a directory, following links by hand, even dangling ones."""
        resolved: list[str] = []
        wanted, links = list(reversed(directory)), 0
        while wanted:
            part = wanted.pop()
            if part in ("", "."):
                continue
            if part == "..":
                del resolved[-1:]
                continue
            target = self._ensure((*resolved, part))
            if target is None:
                resolved.append(part)
                continue
            links += 1
            if links > _MOST_LINKS:
                raise _refused("/".join(directory), OSError(errno.ELOOP, os.strerror(errno.ELOOP)))
            if target.startswith("/"):
                resolved = []
            wanted += reversed(target.split("/"))
        return openat2(self.root, "/".join(resolved) or ".", _DIRECTORY, 0, _RESOLVE)

    def _ensure(self, path: tuple[str, ...]) -> str | None:
        """Make sure a directory is there; gives the target if a symbolic link is."""
        above = openat2(self.root, "/".join(path[:-1]) or ".", _DIRECTORY, 0, _RESOLVE)
        try:
            try:
                os.mkdir(path[-1], 0o755, dir_fd=above)
                os.chmod(path[-1], 0o755, dir_fd=above)
                self.implied.append(path)
            except FileExistsError:
                kind = os.stat(path[-1], dir_fd=above, follow_symlinks=False).st_mode
                if stat.S_ISLNK(kind):
                    return os.readlink(path[-1], dir_fd=above)
                if not stat.S_ISDIR(kind):
                    raise _refused(
                        "/".join(path), OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
                    ) from None
        finally:
            os.close(above)
        return None

    def vacate(self, path: tuple[str, ...]) -> int:
        """Remove whatever is at a path, a directory with all it holds; gives its parent."""
        parent = self.parent(path)
        try:
            os.unlink(path[-1], dir_fd=parent)
        except FileNotFoundError:
            return parent
        except IsADirectoryError:
            remove_directory(parent, path[-1])
        self.forget()
        return self.parent(path)

    def kind(self, parent: int, name: str) -> int:
        """The type bits of what has this name, 0 if nothing has."""
        try:
            return stat.S_IFMT(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode)
        except FileNotFoundError:
            return 0

    def link(self, target: tuple[str, ...], path: tuple[str, ...]) -> None:
        """Make a hard link; raises ``ImageError`` if the target is not in the tree, or no file."""
        name = "/".join(path)
        try:
            source = self._open(target[:-1], create=False)
        except FileNotFoundError:
            raise _no_target(name, target) from None
        try:
            kind = self.kind(source, target[-1])
            if not kind or kind == stat.S_IFDIR:
                raise _no_target(name, target)
            parent = self.parent(path)
            if _same_entry(source, target[-1], parent, path[-1]):
                return
            parent = self.vacate(path)
            with _named(name):
                os.link(
                    target[-1], path[-1], src_dir_fd=source, dst_dir_fd=parent,
                    follow_symlinks=False,
                )  # fmt: skip
        except FileNotFoundError:
            raise _no_target(name, target) from None
        finally:
            os.close(source)


@contextlib.contextmanager
def _named(name: str) -> Iterator[None]:
    """An error of the kernel names the entry."""
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise _refused(name, error) from None


def _same_entry(source: int, source_name: str, parent: int, name: str) -> bool:
    if source_name != name:
        return False
    one, other = os.fstat(source), os.fstat(parent)
    return (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino)


def _no_target(name: str, target: tuple[str, ...]) -> ImageError:
    return ImageError(
        f'cannot unpack "{name}"',
        why=f'the target of the hard link, "{"/".join(target)}", is not in this layer',
    )


def _refused(name: str, error: OSError) -> ImageError:
    return ImageError(f'cannot unpack "{name}"', why=error.strerror or str(error))


def remove_directory(parent: int, name: str) -> None:
    """Remove a directory below a descriptor, links not followed, without recursion."""
    stack: list[tuple[int, list[str], Callable[[], None]]] = []

    def enter(above: int, entry: str) -> None:
        fd = os.open(entry, _DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=above)
        stack.append((fd, os.listdir(fd), lambda: os.rmdir(entry, dir_fd=above)))

    enter(parent, name)
    while stack:
        fd, names, finish = stack[-1]
        if not names:
            stack.pop()
            os.close(fd)
            finish()
            continue
        entry = names.pop()
        try:
            os.unlink(entry, dir_fd=fd)
        except IsADirectoryError:
            enter(fd, entry)
