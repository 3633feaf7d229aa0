"""Reading files out of our own EROFS layers without mounting them.

The one rule: only what ``erofs.build`` makes is read (no compression, no chunks), and every size
is bounded by the file's, so a damaged file gives ``ValueError`` and nothing worse. Source: the
kernel's fs/erofs/erofs_fs.h.
"""

from __future__ import annotations

import os
import stat

from kata.wire.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Self

_MAGIC = 0xE0F5E1E2
_SUPERBLOCK = 1024
_SLOT = 32  # bytes: inodes are numbered in these
_PLAIN, _INLINE = 0, 2  # data layouts
_PREFIXES = {
    1: "user.", 2: "system.posix_acl_access", 3: "system.posix_acl_default", 4: "trusted.",
    6: "security.",
}  # fmt: skip
_PIECE = 1 << 20
_LARGEST_DIRECTORY = 64 << 20
_NODE_KINDS = (stat.S_IFCHR, stat.S_IFBLK)


@record
class Inode:
    """An inode: where it and its data are; ``device`` of a device node; ``mtime_ns``."""

    nid: int
    mode: int
    uid: int
    gid: int
    size: int
    device: int
    mtime_ns: int
    layout: int
    block: int
    xattrs_at: int
    data_at: int  # of the inline tail


class Reader:
    """An open EROFS file; a context manager."""

    def __init__(self, path: str) -> None:
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            head = self._bytes(_SUPERBLOCK, 128)
            if _number(head, 0, 4) != _MAGIC:
                raise ValueError(f'"{path}" is no EROFS file')
            self._block = 1 << min(head[12], 16)
            self._meta = _number(head, 40, 4) * self._block
            self._shared = _number(head, 44, 4) * self._block
            self.root = self.inode(_number(head, 14, 2))
        except BaseException:
            os.close(self._fd)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)

    def _bytes(self, at: int, size: int) -> bytes:
        data = os.pread(self._fd, size, at)
        if len(data) < size:
            raise ValueError("the EROFS file ends too early")
        return data

    def inode(self, nid: int) -> Inode:
        """The inode of a number."""
        at = self._meta + nid * _SLOT
        raw = self._bytes(at, 32)
        layout, icount, mode = _number(raw, 0, 2) >> 1 & 7, _number(raw, 2, 2), _number(raw, 4, 2)
        if raw[0] & 1:
            raw += self._bytes(at + 32, 32)
            size, uid, gid = _number(raw, 8, 8), _number(raw, 24, 4), _number(raw, 28, 4)
            mtime_ns = _number(raw, 32, 8) * 10**9 + _number(raw, 40, 4)
        else:
            size, uid, gid = _number(raw, 8, 4), _number(raw, 24, 2), _number(raw, 26, 2)
            mtime_ns = 0
        where = _number(raw, 16, 4)
        xattrs_at = at + len(raw)
        data_at = xattrs_at + (12 + 4 * (icount - 1) if icount else 0)
        node = stat.S_IFMT(mode) in _NODE_KINDS
        return Inode(
            nid, mode, uid, gid, size, where if node else 0, mtime_ns, layout, where,
            xattrs_at if icount else 0, data_at,
        )  # fmt: skip

    def content(self, inode: Inode, most: int) -> bytes:
        """The content of a file (or link, or directory); ``ValueError`` above ``most`` bytes."""
        if inode.layout not in (_PLAIN, _INLINE) or inode.size > most:
            raise ValueError("too large, or of a layout that is not read here")
        whole = inode.size if inode.layout == _PLAIN else inode.size - inode.size % self._block
        data = self._bytes(inode.block * self._block, whole) if whole else b""
        if whole < inode.size:
            data += self._bytes(inode.data_at, inode.size - whole)
        return data

    def pieces(self, inode: Inode) -> Iterator[bytes]:
        """The content of a file, piece by piece."""
        whole = inode.size if inode.layout == _PLAIN else inode.size - inode.size % self._block
        if inode.layout not in (_PLAIN, _INLINE):
            raise ValueError("of a layout that is not read here")
        for at in range(0, whole, _PIECE):
            yield self._bytes(inode.block * self._block + at, min(_PIECE, whole - at))
        if whole < inode.size:
            yield self._bytes(inode.data_at, inode.size - whole)

    def entries(self, directory: Inode) -> Iterator[tuple[str, int]]:
        """Names and inode numbers in a directory, with "." and ".."."""
        data = self.content(directory, _LARGEST_DIRECTORY)
        for start in range(0, len(data), self._block):
            block = data[start : start + self._block]
            first = _number(block, 8, 2)
            offsets = [_number(block, at + 8, 2) for at in range(0, first, 12)]
            for index, offset in enumerate(offsets):
                end = offsets[index + 1] if index + 1 < len(offsets) else len(block)
                name = block[offset:end].partition(b"\0")[0]
                yield os.fsdecode(name), _number(block, index * 12, 8)

    def lookup(self, directory: Inode, name: str) -> Inode | None:
        """The inode of a name in a directory."""
        for found, nid in self.entries(directory):
            if found == name:
                return self.inode(nid)
        return None

    def xattrs(self, inode: Inode) -> dict[str, bytes]:
        """Extended attributes by their whole names."""
        if not inode.xattrs_at:
            return {}
        found: dict[str, bytes] = {}
        shared = self._bytes(inode.xattrs_at, 12)[4]
        at = inode.xattrs_at + 12
        for index in range(shared):
            place = _number(self._bytes(at + 4 * index, 4), 0, 4)
            self._xattr(self._shared + 4 * place, found)
        at += 4 * shared
        while at + 4 <= inode.data_at:
            at = self._xattr(at, found)
        return found

    def _xattr(self, at: int, found: dict[str, bytes]) -> int:
        head = self._bytes(at, 4)
        size = _number(head, 2, 2)
        data = self._bytes(at + 4, head[0] + size)
        if head[1] in _PREFIXES:
            name = _PREFIXES[head[1]] + data[: head[0]].decode("utf-8", "surrogateescape")
            found[name] = data[head[0] :]
        return at + (4 + head[0] + size + 3) // 4 * 4


def whole(path: str) -> bool:
    """Whether a file is an EROFS file and as long as it says itself."""
    try:
        with open(path, "rb", buffering=0) as file:
            head = os.pread(file.fileno(), 128, _SUPERBLOCK)
            size = os.fstat(file.fileno()).st_size
    except OSError:
        return False
    good = len(head) == 128 and _number(head, 0, 4) == _MAGIC
    return good and _number(head, 36, 4) << min(head[12], 16) == size


def _number(data: bytes, at: int, size: int) -> int:
    return int.from_bytes(data[at : at + size], "little")
