"""Private temporary directories that outlive no process, and locks that leave no file.

The one rule: whoever made a directory holds a lock (flock) on ``<name>.lock`` beside it, made
before it and removed after it; so whether it is abandoned is asked of the kernel.
"""

from __future__ import annotations

import contextlib
import fcntl
import os

from kata.errors import HostError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

_LOCK, _OURS, _LAYER = ".lock", "image-", "layer-"


@contextlib.contextmanager
def directory(root: str) -> Iterator[str]:
    """A new directory below ``root``, for root alone, removed with all it holds at the end."""
    collect(root)
    path = f"{root}/{_OURS}{os.getpid()}-{os.urandom(6).hex()}"
    with lock(path + _LOCK):
        os.mkdir(path, 0o700)
        try:
            yield path
        finally:
            remove_tree(path)


def layer_lock(root: str, key: str) -> AbstractContextManager[bool]:
    """The lock on making the layer of a key."""
    return lock(f"{root}/{_LAYER}{key}{_LOCK}")


@contextlib.contextmanager
def lock(path: str, *, wait: bool = True) -> Iterator[bool]:
    """Hold the lock file at ``path``, which is gone when nobody holds it; gives whether it is held.

    Without ``wait`` another's lock gives False at once.
    """
    fd = _take(path, wait=wait)
    if fd is None:
        yield False
        return
    try:
        yield True
    finally:
        _unlink(path)
        os.close(fd)


def _take(path: str, *, wait: bool) -> int | None:
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            if _same(fd, path):
                return fd
        except BlockingIOError:
            os.close(fd)
            return None
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)  # its holder removed it while we waited: a new one decides


@contextlib.contextmanager
def shared(path: str, *, exclusive: bool = False) -> Iterator[bool]:
    """Hold a lock file that stays: shared (waiting for it), or exclusive (False if not free)."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            kind = fcntl.LOCK_EX | fcntl.LOCK_NB if exclusive else fcntl.LOCK_SH
            fcntl.flock(fd, kind)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(fd)


def collect(root: str) -> list[str]:
    """Remove what ended processes left below ``root``; gives the paths removed."""
    removed = []
    try:
        os.makedirs(root, 0o700, exist_ok=True)
        names = set(os.listdir(root))
    except OSError as error:
        raise HostError(
            f'cannot use the directory "{root}"', why=error.strerror or str(error),
            hint="run as root, or choose another with --data-root",
        ) from None  # fmt: skip
    for name in sorted({n.removesuffix(_LOCK) for n in names if n.startswith(_OURS)}):
        path = f"{root}/{name}"
        with lock(path + _LOCK, wait=False) as held:
            if held and os.path.lexists(path):
                remove_tree(path)
                removed.append(path)
    for name in names:
        if name.startswith(_LAYER) and name.endswith(_LOCK):
            with lock(f"{root}/{name}", wait=False):
                pass  # taking it and letting go removes it
    return removed


def remove_tree(path: str) -> None:
    """Remove a directory and all it holds, however deep it is; symbolic links are not followed."""
    from kata.image.tree import remove_directory

    parent = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        remove_directory(parent, os.path.basename(path))
    except FileNotFoundError:
        pass
    finally:
        os.close(parent)


def _same(fd: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path))
    except FileNotFoundError:
        return False


def _unlink(path: str) -> None:
    with contextlib.suppress(OSError):
        os.unlink(path)
