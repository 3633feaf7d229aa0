"""One layer's blob into one verified EROFS file of the store.

The one rule: a file under ``<data_root>/layers/sha256`` is complete and was made from exactly the
bytes its name is the digest of: it is built in a scratch directory, and renamed into place after
the digest was found right, under a lock on that name.
"""

from __future__ import annotations

import errno
import hashlib
import os

from kata.errors import ImageError
from kata.image import compression, erofs, layer, merged, scratch, tarstream
from kata.image.changes import cannot_write
from kata.image.erofs_reader import whole
from kata.image.tree import Tree
from kata.wire.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from typing import IO

    from kata.image.compression import Readable
    from kata.image.progress import Progress, Task
    from kata.image.store import Store
    from kata.image.tarstream import Limits

_PIECE = 1 << 20
_FULL = (errno.ENOSPC, errno.EDQUOT)


@record
class Layer:
    """A layer in the store: its file, and that file's size in bytes."""

    path: str
    size: int


@record
class Built:
    """A layer that was built: ``key`` is what its file is named by, of ``size`` bytes.

    The key is the diff id (hexadecimal), and more where the file depends on the layers below.
    """

    diff_id: str
    key: str
    size: int


@record
class Work:
    """How to unpack: ``below`` are the files of the layers below, the lowest first."""

    text: str
    limits: Limits
    progress: Progress
    below: tuple[str, ...] = ()


def path_of(store: Store, key: str) -> str:
    """Where the layer of a key is kept."""
    return f"{store.layers}/{key}.erofs"


def present(store: Store, key: str) -> Layer | None:
    """The layer, if the store has it; one that was cut short since is as good as none."""
    path = path_of(store, key)
    return Layer(path, os.stat(path).st_size) if whole(path) else None


def ensure(
    store: Store, diff_id: str, blob: Callable[[], AbstractContextManager[IO[bytes]]], work: Work
) -> Layer:
    """The layer of a diff id, made of the blob if the store lacks it; who comes second waits.

    Raises ``ImageError`` for a bad blob, ``HostError`` for a full or read-only disk.
    """
    known = present(store, diff_id)
    if known:
        return known
    try:
        with scratch.layer_lock(store.scratch, diff_id):
            known = present(store, diff_id)
            if known:
                return known
            with scratch.directory(store.scratch) as directory, blob() as file:
                built = build(file, directory, work)
                if built.diff_id != diff_id:
                    raise ImageError(
                        f'layer "{diff_id[:12]}" is damaged',
                        why=f'its content has the digest "{built.diff_id[:12]}"',
                    )
                return install(store, directory, built)
    except OSError as error:
        raise failed(store, error) from None


def failed(store: Store, error: OSError) -> Exception:
    """The error for what the disk refused."""
    if error.errno in _FULL:
        return erofs.no_space(store.data_root)
    return cannot_write(store.data_root, error)


def build(file: IO[bytes], directory: str, work: Work) -> Built:
    """Unpack a blob and make ``<directory>/layer.erofs``."""
    tree = f"{directory}/tree"
    os.mkdir(tree, 0o755)
    os.chmod(tree, 0o755)
    total = os.fstat(file.fileno()).st_size
    text = f"unpacking {work.text}"
    with work.progress.task(text, total) as task, compression.opened(file) as plain:
        stream = _Hashed(plain, file, work.limits, task)
        applied = layer.apply(tarstream.entries(stream, work.limits), tree)
        stream.drain()
    for name in applied.lost_xattrs:
        work.progress.note(f'this file system cannot keep the extended attribute "{name}"')
    key = stream.digest() + (_inherit(tree, applied.implied, work.below) if applied.implied else "")
    size = erofs.build(tree, f"{directory}/layer.erofs", newest=applied.newest)
    return Built(stream.digest(), key, size)


def _inherit(tree: str, implied: tuple[str, ...], below: tuple[str, ...]) -> str:
    """Give directories that the archive does not describe the mode and owner they have below.

    Else a layer with nothing but ``tmp/file`` would make /tmp a directory that root alone writes.
    What came of it is part of the layer's key, because it depends on the layers below.
    """
    inherited = []
    with merged.opened(below) as lower, Tree(tree) as target:
        for path in implied:
            found = lower.directory(path)
            if found is None:
                continue
            parts = tuple(path.split("/"))
            parent, mode = target.parent(parts, create=False), found.mode & 0o7777
            os.chown(parts[-1], found.uid, found.gid, dir_fd=parent, follow_symlinks=False)
            os.chmod(parts[-1], mode, dir_fd=parent)
            inherited.append((path, mode, found.uid, found.gid))
    return "-" + hashlib.sha256(repr(inherited).encode()).hexdigest()[:12]


def install(store: Store, directory: str, built: Built) -> Layer:
    """Move a built file to its place, for good."""
    path = path_of(store, built.key)
    os.rename(f"{directory}/layer.erofs", path)
    fd = os.open(store.layers, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
    return Layer(path, built.size)


class _Hashed:
    """The plain stream, hashed and counted as it is read."""

    def __init__(self, plain: Readable, file: IO[bytes], limits: Limits, task: Task) -> None:
        self._plain = plain
        self._file = file
        self._task = task
        self._most = 2 * limits.size + (1 << 20)  # headers and padding come on top
        self._hash = hashlib.sha256()
        self._count = 0

    def read(self, size: int, /) -> bytes:
        data = self._plain.read(size)
        self._hash.update(data)
        self._count += len(data)
        if self._count > self._most:
            raise ImageError("the layer is too large", why=f"more than {self._most} bytes")
        self._task.at(os.lseek(self._file.fileno(), 0, os.SEEK_CUR))
        return data

    def drain(self) -> None:
        """Read what follows the end of the archive: it belongs to the digest."""
        while self.read(_PIECE):
            pass

    def digest(self) -> str:
        return self._hash.hexdigest()
