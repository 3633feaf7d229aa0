"""The lowest layers of an image with very many, made one.

The one rule: what a container sees is the same. Every layer is a disk of the virtual machine and
a mount in it, and both are bounded; so images beyond ``MOST`` layers trade sharing for that.
"""

from __future__ import annotations

import hashlib
import os
import stat

from kata.image import erofs, merged, scratch, unpack
from kata.image.layer import write_all

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kata.image.erofs_reader import Inode, Reader
    from kata.image.merged import Found
    from kata.image.progress import Progress
    from kata.image.store import Store

MOST = 16
_OVERLAY = "trusted.overlay."
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def at_most(
    store: Store, layers: list[tuple[str, int]], progress: Progress, *, most: int = MOST
) -> list[tuple[str, int]]:
    """The layers (file and size, the lowest first), no more than ``most``. Raises ``HostError``."""
    if len(layers) <= most:
        return layers
    count = len(layers) - most + 1
    paths = tuple(path for path, _ in layers[:count])
    names = "\n".join(os.path.basename(path) for path in paths)
    key = hashlib.sha256(names.encode()).hexdigest() + "-merged"
    try:
        with scratch.layer_lock(store.scratch, key):
            layer = unpack.present(store, key)
            if layer is None:
                with scratch.directory(store.scratch) as directory:
                    with progress.task(f"merging the lowest {count} layers", 0):
                        size = _build(paths, directory)
                    layer = unpack.install(store, directory, unpack.Built("", key, size))
    except OSError as error:
        raise unpack.failed(store, error) from None
    return [(layer.path, layer.size), *layers[count:]]


def _build(paths: tuple[str, ...], directory: str) -> int:
    tree = f"{directory}/tree"
    os.mkdir(tree)
    with merged.opened(paths) as lower:
        copy = _Copy()
        fd = os.open(tree, _DIRECTORY)
        try:
            copy.fill(lower.root, fd)
        finally:
            os.close(fd)
    return erofs.build(tree, f"{directory}/layer.erofs", newest=copy.newest)


class _Copy:
    def __init__(self) -> None:
        self.newest = 0
        self._linked: dict[tuple[int, int], str] = {}  # by layer and inode: where it is already
        self._top = -1

    def fill(self, directory: Found, fd: int, path: str = "") -> None:
        """Write what a directory shows into the one at ``fd``, then its own metadata."""
        if self._top < 0:
            self._top = fd
        for name, found in sorted(merged.children(directory).items()):
            reader, inode = found[0]
            if not stat.S_ISDIR(inode.mode):
                self._other(reader, inode, (fd, name, f"{path}{name}"))
                continue
            os.mkdir(name, 0o700, dir_fd=fd)
            inner = os.open(name, _DIRECTORY, dir_fd=fd)
            try:
                self.fill(found, inner, f"{path}{name}/")
            finally:
                os.close(inner)
        self._metadata(*directory[0], fd, ".")

    def _other(self, reader: Reader, inode: Inode, place: tuple[int, str, str]) -> None:
        fd, name, path = place
        same = (id(reader), inode.nid)
        if same in self._linked:
            os.link(
                self._linked[same], name, src_dir_fd=self._top, dst_dir_fd=fd,
                follow_symlinks=False,
            )  # fmt: skip
            return
        self._linked[same] = path
        kind = stat.S_IFMT(inode.mode)
        if kind == stat.S_IFREG:
            with open(os.open(name, _CREATE, 0o600, dir_fd=fd), "wb", buffering=0) as file:
                for piece in reader.pieces(inode):
                    write_all(file.fileno(), piece)
        elif kind == stat.S_IFLNK:
            os.symlink(reader.content(inode, 1 << 16), os.fsencode(name), dir_fd=fd)
        else:
            os.mknod(name, kind | 0o600, _device(inode.device), dir_fd=fd)
        self._metadata(reader, inode, fd, name)

    def _metadata(self, reader: Reader, inode: Inode, fd: int, name: str) -> None:
        os.chown(name, inode.uid, inode.gid, dir_fd=fd, follow_symlinks=False)
        if not stat.S_ISLNK(inode.mode):
            os.chmod(name, inode.mode & 0o7777, dir_fd=fd)
        for key, value in reader.xattrs(inode).items():
            if not key.startswith(_OVERLAY):
                os.setxattr(f"/proc/self/fd/{fd}/{name}", key, value, follow_symlinks=False)
        times = (inode.mtime_ns, inode.mtime_ns)
        os.utime(name, ns=times, dir_fd=fd, follow_symlinks=False)
        self.newest = max(self.newest, -(-inode.mtime_ns // 10**9))


def _device(encoded: int) -> int:
    """A device number as the kernel encodes it in 32 bits (new_encode_dev), as ``os`` has it."""
    return os.makedev(encoded >> 8 & 0xFFF, encoded & 0xFF | encoded >> 12 & 0xFFF00)
