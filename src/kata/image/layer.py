"""A layer's entries into a directory tree, in the form in which overlayfs takes them.

The one rule: the tree holds exactly what the layer says and nothing of the order it says it in:
``.wh.NAME`` becomes a character device 0/0 unless the layer has NAME itself, ``.wh..wh..opq`` the
xattr ``trusted.overlay.opaque=y`` on its directory. Sources: OCI image-spec v1.1 layer.md;
overlayfs.rst of the kernel.
"""

from __future__ import annotations

import errno
import os
import stat

from kata.errors import HostError, ImageError
from kata.image import tarstream
from kata.image.tree import Tree
from kata.wire.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from kata.image.tarstream import Entry

WHITEOUT, OPAQUE_MARK, _AUFS = ".wh.", ".wh..wh..opq", ".wh..wh."
OPAQUE = "trusted.overlay.opaque"
_KEPT_XATTRS = ("user.", "trusted.", "security.", "system.posix_acl_")
_OVERLAY = "trusted.overlay."  # overlayfs's own: an image may not drive it
_NODES = {
    tarstream.CHARACTER: stat.S_IFCHR,
    tarstream.BLOCK: stat.S_IFBLK,
    tarstream.FIFO: stat.S_IFIFO,
}
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


@record
class Applied:
    """What a layer was found to hold. ``implied`` directories had no entry of their own."""

    entries: int
    newest: int  # seconds since the epoch, of all its times
    implied: tuple[str, ...] = ()
    lost_xattrs: tuple[str, ...] = ()  # names of those the file system cannot keep


def apply(entries: Iterable[Entry], root: str) -> Applied:
    """Write a layer's entries below an empty directory.

    Raises ``ImageError`` for what cannot or may not be unpacked, ``OSError`` for a full disk.
    """
    with Tree(root) as tree:
        writer = _Writer(tree)
        for entry in entries:
            writer.add(entry)
        return writer.finish()


class _Writer:
    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._whiteouts: dict[tuple[str, ...], None] = {}
        self._opaque: dict[tuple[str, ...], None] = {}
        self._times: dict[tuple[str, ...], int] = {}  # of directories: set when all is in them
        self._lost: dict[str, None] = {}
        self._count = 0
        self._newest = 0

    def add(self, entry: Entry) -> None:
        self._count += 1
        self._newest = max(self._newest, -(-entry.mtime_ns // 10**9))
        if any(part.startswith(WHITEOUT) for part in entry.path):
            self._mark(entry)
            return
        try:
            self._write(entry)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO):
                raise
            raise ImageError(
                f'cannot unpack "{entry.name}"', why=error.strerror or str(error)
            ) from None

    def _mark(self, entry: Entry) -> None:
        """Note a whiteout; its metadata mean nothing."""
        *above, name = entry.path
        hidden = name[len(WHITEOUT) :]
        if name == OPAQUE_MARK:
            self._opaque[tuple(above)] = None
        elif name.startswith(_AUFS) or any(part.startswith(_AUFS) for part in above):
            return  # bookkeeping of the aufs driver
        elif hidden in ("", ".", "..") or any(part.startswith(WHITEOUT) for part in above):
            raise ImageError(f'cannot unpack "{entry.name}"', why="it is no valid whiteout")
        else:
            self._whiteouts[*above, hidden] = None

    def _write(self, entry: Entry) -> None:
        if entry.kind == tarstream.DIRECTORY:
            self._directory(entry)
        elif entry.kind == tarstream.HARDLINK:
            target = tarstream.components(entry.target)
            if not target:
                raise ImageError(f'cannot unpack "{entry.name}"', why="a hard link to the root")
            self._tree.link(target, entry.path)
        else:
            parent, name = self._tree.vacate(entry.path), entry.path[-1]
            if entry.kind == tarstream.FILE:
                self._file(entry, parent, name)
                return
            if entry.kind == tarstream.SYMLINK:
                os.symlink(entry.target, name, dir_fd=parent)
            else:
                os.mknod(name, _NODES[entry.kind] | 0o600, os.makedev(*entry.device), dir_fd=parent)
            self._metadata(entry, parent, name)

    def _directory(self, entry: Entry) -> None:
        if not entry.path:
            parent, name = self._tree.root, "."
        else:
            parent, name = self._tree.parent(entry.path), entry.path[-1]
            if self._tree.kind(parent, name) != stat.S_IFDIR:
                parent = self._tree.vacate(entry.path)
                os.mkdir(name, 0o700, dir_fd=parent)
        self._metadata(entry, parent, name)
        self._times.pop(entry.path, None)
        self._times[entry.path] = entry.mtime_ns

    def _file(self, entry: Entry, parent: int, name: str) -> None:
        fd = os.open(name, _CREATE, 0o600, dir_fd=parent)
        try:
            for data in tarstream.chunks(entry):
                if entry.sparse and not data.strip(b"\0"):
                    os.lseek(fd, len(data), os.SEEK_CUR)
                else:
                    write_all(fd, data)
            if entry.sparse:
                os.ftruncate(fd, entry.size)
            os.fchown(fd, entry.uid, entry.gid)
            os.fchmod(fd, entry.mode)
            self._xattrs(entry, f"/proc/self/fd/{parent}/{name}")
            os.utime(fd, ns=(entry.mtime_ns, entry.mtime_ns))
        finally:
            os.close(fd)

    def _metadata(self, entry: Entry, parent: int, name: str) -> None:
        os.chown(name, entry.uid, entry.gid, dir_fd=parent, follow_symlinks=False)
        if entry.kind != tarstream.SYMLINK:
            os.chmod(name, entry.mode, dir_fd=parent)
        self._xattrs(entry, f"/proc/self/fd/{parent}/{name}")
        times = (entry.mtime_ns, entry.mtime_ns)
        os.utime(name, ns=times, dir_fd=parent, follow_symlinks=False)

    def _xattrs(self, entry: Entry, path: str) -> None:
        """Set extended attributes: last of all, since changing the owner removes capabilities."""
        for name, value in entry.xattrs:
            if not name.startswith(_KEPT_XATTRS) or name.startswith(_OVERLAY):
                continue
            if name.startswith("user.") and entry.kind not in (
                tarstream.FILE, tarstream.DIRECTORY,
            ):  # fmt: skip
                continue  # no file system has them
            try:
                os.setxattr(path, name, value, follow_symlinks=False)
            except OSError as error:
                if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.EPERM):
                    raise
                if name == "security.capability":
                    raise HostError(
                        f'cannot keep the capabilities of "{entry.name}"', why=error.strerror or "",
                        hint="the data root must be on a file system with security attributes",
                    ) from None  # fmt: skip
                self._lost[name] = None

    def finish(self) -> Applied:
        """Apply what has to wait for all entries: whiteouts, then the times of directories."""
        self._tree.forget()
        for path in self._whiteouts:
            self._whiteout(path)
        for path in self._opaque:
            self._make_opaque(path)
        implied = tuple([path for path in self._tree.implied if path not in self._times])
        for path in (*implied, ()):
            self._times.setdefault(path, self._newest * 10**9)
        for path, mtime_ns in self._times.items():
            self._set_time(path, mtime_ns)
        return Applied(
            self._count, self._newest, tuple("/".join(p) for p in implied), tuple(self._lost)
        )

    def _whiteout(self, path: tuple[str, ...]) -> None:
        try:
            parent = self._tree.parent(path)
            kind = self._tree.kind(parent, path[-1])
            if kind == stat.S_IFDIR:  # it goes, and another one comes in its place
                os.setxattr(f"/proc/self/fd/{parent}/{path[-1]}", OPAQUE, b"y")
            elif not kind and path[:-1] not in self._opaque:
                os.mknod(path[-1], stat.S_IFCHR, os.makedev(0, 0), dir_fd=parent)
                times = (self._newest * 10**9,) * 2
                os.utime(path[-1], ns=times, dir_fd=parent, follow_symlinks=False)
        except ImageError:
            pass  # a file took the place of its directory, and hides what was there

    def _make_opaque(self, path: tuple[str, ...]) -> None:
        try:
            parent = self._tree.parent((*path, "."))
            os.setxattr(f"/proc/self/fd/{parent}", OPAQUE, b"y")
        except ImageError:
            pass  # as above

    def _set_time(self, path: tuple[str, ...], mtime_ns: int) -> None:
        times = (mtime_ns, mtime_ns)
        if not path:
            os.utime(self._tree.root, ns=times)
            return
        try:
            parent = self._tree.parent(path, create=False)
            if self._tree.kind(parent, path[-1]) == stat.S_IFDIR:
                os.utime(path[-1], ns=times, dir_fd=parent, follow_symlinks=False)
        except (FileNotFoundError, ImageError):
            pass  # it was replaced later


def write_all(fd: int, data: bytes) -> None:
    """Write all of it."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
