"""The archive that a Linux kernel unpacks as its first root file system: cpio, "newc" format.

The one rule: the same entries give the same bytes: sorted by path, owned by root, one time stamp,
inode numbers counted up. Format: the kernel's Documentation/driver-api/early-userspace/
buffer-format.rst.
"""

from __future__ import annotations

import stat

from kata.wire.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

_BLOCK = 512


@record
class Entry:
    """One file of the archive; ``path`` is relative. ``data`` is a file's bytes or a link's target.

    ``mode`` holds the type and the permissions; ``device`` a node's major and minor number.
    """

    path: str
    mode: int
    data: bytes = b""
    device: tuple[int, int] = (0, 0)


def directory(path: str, permissions: int = 0o755) -> Entry:
    """A directory."""
    return Entry(path, stat.S_IFDIR | permissions)


def regular(path: str, data: bytes, permissions: int = 0o644) -> Entry:
    """A regular file."""
    return Entry(path, stat.S_IFREG | permissions, data)


def symlink(path: str, target: str) -> Entry:
    """A symbolic link."""
    return Entry(path, stat.S_IFLNK | 0o777, target.encode())


def character_device(path: str, major: int, minor: int, permissions: int) -> Entry:
    """A character device node."""
    return Entry(path, stat.S_IFCHR | permissions, device=(major, minor))


def archive(entries: Iterable[Entry], *, mtime: int = 0) -> bytes:
    """The archive; missing parent directories are added. Raises ``ValueError`` for bad paths."""
    chosen: dict[str, Entry] = {}
    for entry in entries:
        _check(entry.path)
        if entry.path in chosen:
            raise ValueError(f'"{entry.path}" stands in the archive twice')
        chosen[entry.path] = entry
    for path in list(chosen):
        while "/" in path:
            path = path.rpartition("/")[0]
            chosen.setdefault(path, directory(path))
    parts = [_record(chosen[p], i, mtime) for i, p in enumerate(_ordered(chosen), 1)]
    parts.append(_record(Entry("TRAILER!!!", 0), 0, 0))
    data = b"".join(parts)
    return data + b"\0" * (-len(data) % _BLOCK)


def _ordered(paths: Iterable[str]) -> list[str]:
    """Parents before what they hold."""
    return sorted(paths, key=lambda path: path.split("/"))


def _check(path: str) -> None:
    parts = path.split("/")
    if not path or any(part in ("", ".", "..") for part in parts) or path == "TRAILER!!!":
        raise ValueError(f'"{path}" cannot be the path of an archived file')


def _record(entry: Entry, inode: int, mtime: int) -> bytes:
    name = entry.path.encode() + b"\0"
    links = 2 if stat.S_ISDIR(entry.mode) else 1
    fields = (
        inode, entry.mode, 0, 0, links, mtime, len(entry.data), 0, 0, *entry.device, len(name), 0,
    )  # fmt: skip
    header = b"070701" + b"".join(b"%08X" % value for value in fields) + name
    return _padded(header) + _padded(entry.data)


def _padded(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % 4)
