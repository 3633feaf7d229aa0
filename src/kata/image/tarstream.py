"""The entries of a layer's tar stream, their metadata checked and made exact.

The one rule: the standard library's ``tarfile`` parses, but nothing it gives is believed: names,
numbers and sizes are bounded here, and what it would take for a silent end of the archive is an
``ImageError``. Formats: POSIX.1-2001 pax, ustar, GNU; xattrs as ``SCHILY.xattr.*`` records.
"""

from __future__ import annotations

import os
import sys
import tarfile

from kata.errors import ImageError
from kata.wire.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import IO, Any

    from kata.image.compression import Readable

FILE, DIRECTORY, SYMLINK, HARDLINK = "file", "directory", "symlink", "hardlink"
CHARACTER, BLOCK, FIFO = "character", "block", "fifo"
_KINDS = {
    tarfile.REGTYPE: FILE, tarfile.AREGTYPE: FILE, tarfile.CONTTYPE: FILE,
    tarfile.GNUTYPE_SPARSE: FILE, tarfile.DIRTYPE: DIRECTORY, tarfile.SYMTYPE: SYMLINK,
    tarfile.LNKTYPE: HARDLINK, tarfile.CHRTYPE: CHARACTER, tarfile.BLKTYPE: BLOCK,
    tarfile.FIFOTYPE: FIFO,
}  # fmt: skip
_EXTENSIONS = (
    tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK,
)  # fmt: skip
_LARGEST_EXTENSION = 1 << 20  # as Go's archive/tar has it
_LONGEST_PATH, _LONGEST_COMPONENT, _DEEPEST = 4000, 255, 512
_LONGEST_LINK = 4095
_XATTR = "SCHILY.xattr."
_PIECE = 1 << 20
_NO_ID = 0xFFFFFFFF
_LATEST = 1 << 34  # seconds; the year 2514: past what ext4 can hold


@record
class Limits:
    """How much one layer may unpack to."""

    entries: int = 4_000_000
    size: int = 256 << 30  # bytes


@record
class Entry:
    """One entry: ``path`` and a hard link's ``target`` as components, a symlink's as it is.

    ``xattrs`` are (name, value); ``content`` is a file's, to be read before the next entry.
    """

    kind: str
    path: tuple[str, ...]
    mode: int
    uid: int
    gid: int
    mtime_ns: int
    size: int = 0
    target: str = ""
    device: tuple[int, int] = (0, 0)
    xattrs: tuple[tuple[str, bytes], ...] = ()
    sparse: bool = False
    content: IO[bytes] | None = None

    @property
    def name(self) -> str:
        """The whole path, for messages."""
        return "/".join(self.path)


class _Header(tarfile.TarInfo):
    """A header whose damage is never taken for the end of the archive."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Any:
        try:
            header = super().frombuf(buf, encoding, errors)
        except (tarfile.EmptyHeaderError, tarfile.EOFHeaderError):  # type: ignore[attr-defined]
            raise
        except (tarfile.HeaderError, ValueError) as error:
            raise ImageError("the layer is not a valid tar archive", why=str(error)) from None
        if header.size < 0:
            raise ImageError("the layer is not a valid tar archive", why="negative size")
        if header.type in _EXTENSIONS and header.size > _LARGEST_EXTENSION:
            raise ImageError(
                "the layer is not a valid tar archive", why="an extended header above 1 MiB"
            )
        return header


def entries(stream: Readable, limits: Limits) -> Iterator[Entry]:
    """The entries in order; each must be used before the next is asked for."""
    size = count = 0
    try:
        archive: Any = tarfile.open(
            fileobj=stream, mode="r|", tarinfo=_Header, errors="surrogateescape", encoding="utf-8",
            bufsize=1 << 18,
        )  # type: ignore[call-overload]  # fmt: skip
        with archive:
            while (member := archive.next()) is not None:
                archive.members.clear()  # they would all be kept
                count += 1
                size += max(member.size, 0)
                if count > limits.entries or size > limits.size:
                    raise _too_big(limits, entries=count > limits.entries)
                entry = _entry(member, archive)
                if entry.path or entry.kind == DIRECTORY:
                    yield entry
    except tarfile.TarError as error:
        why = str(error)
        if why == "empty file":
            why = "it is empty"
        raise ImageError("the layer is not a valid tar archive", why=why) from None
    except (ValueError, OverflowError, IndexError) as error:  # of its parsing of sparse files
        raise ImageError("the layer is not a valid tar archive", why=str(error)) from None


def _too_big(limits: Limits, *, entries: bool) -> ImageError:
    most = f"{limits.entries} entries" if entries else f"{limits.size} bytes"
    return ImageError("the layer is too large", why=f"it unpacks to more than {most}")


def _entry(member: tarfile.TarInfo, archive: Any) -> Entry:
    kind = _KINDS.get(member.type)
    path = components(member.name)
    if kind is None:
        raise ImageError(f'cannot unpack "{member.name}"', why=f"entry of type {member.type!r}")
    if not path and kind != DIRECTORY:
        raise ImageError(f'cannot unpack "{member.name}"', why="it would replace the root")
    if kind == FILE:
        _check_sparse(member)
    return Entry(
        kind=kind,
        path=path,
        mode=member.mode & 0o7777,
        uid=_id(member.uid, member.name),
        gid=_id(member.gid, member.name),
        mtime_ns=_mtime(member),
        size=member.size if kind == FILE else 0,
        target=_target(member) if kind in (SYMLINK, HARDLINK) else "",
        device=_device(member) if kind in (CHARACTER, BLOCK) else (0, 0),
        xattrs=_xattrs(member),
        sparse=bool(getattr(member, "sparse", None)),
        content=archive.extractfile(member) if kind == FILE else None,
    )


def chunks(entry: Entry) -> Iterator[bytes]:
    """The content of a file, piece by piece. Raises ``ImageError`` if the archive is cut."""
    if entry.content is None:
        return
    left = entry.size
    try:
        while left > 0:
            data = entry.content.read(min(left, _PIECE))
            if not data:
                raise ImageError(f'cannot unpack "{entry.name}"', why="the archive ends in it")
            left -= len(data)
            yield data
    except tarfile.TarError as error:
        raise ImageError(f'cannot unpack "{entry.name}"', why=str(error)) from None


def _filename(text: str) -> str:
    """Text decoded as UTF-8, as ``os`` wants it where file names are in another encoding."""
    if sys.getfilesystemencoding() == "utf-8":
        return text
    return os.fsdecode(text.encode("utf-8", "surrogateescape"))


def components(name: str) -> tuple[str, ...]:
    """A path below the root as components: a leading "/" is dropped, ".." refused."""
    name = _filename(name)
    parts = tuple([part for part in name.split("/") if part not in ("", ".")])
    why = ""
    if ".." in parts:
        why = 'its path has a ".."'
    elif "\0" in name:
        why = "its path has a NUL character"
    elif len(parts) > _DEEPEST or len(os.fsencode(name)) > _LONGEST_PATH:
        why = f"its path is longer than {_LONGEST_PATH} bytes or {_DEEPEST} components"
    elif any(len(part) > _LONGEST_COMPONENT // 4 and _too_long(part) for part in parts):
        why = f"a component of its path is longer than {_LONGEST_COMPONENT} bytes"
    if why:
        raise ImageError(f'refusing to unpack "{name[:200]}"', why=why)
    return parts


def _too_long(part: str) -> bool:
    return len(os.fsencode(part)) > _LONGEST_COMPONENT


def _check_sparse(member: tarfile.TarInfo) -> None:
    """The map of a sparse file must be in order and inside the file."""
    at = 0
    for offset, length in getattr(member, "sparse", None) or ():
        if length == 0 and offset >= 0:
            continue  # GNU tar ends its map with such
        if offset < at or length < 0 or offset + length > member.size:
            raise ImageError(f'cannot unpack "{member.name}"', why="its map of holes is wrong")
        at = offset + length
    if member.size < 0:
        raise ImageError(f'cannot unpack "{member.name}"', why="negative size")


def _id(value: int, name: str) -> int:
    if not 0 <= value < _NO_ID:
        raise ImageError(f'cannot unpack "{name}"', why=f"user or group id {value} is out of range")
    return value


def _mtime(member: tarfile.TarInfo) -> int:
    """Nanoseconds since the epoch; what lies outside of 1970 to 2514 becomes the nearest."""
    text = member.pax_headers.get("mtime", "")
    seconds, _, fraction = text.partition(".")
    if not (seconds.isascii() and seconds.isdecimal()) or len(seconds) > 20:
        seconds, fraction = str(int(max(0, min(member.mtime, _LATEST)))), ""
    if not (fraction.isascii() and fraction.isdecimal()):
        fraction = "0"
    return min(int(seconds), _LATEST) * 10**9 + int(fraction[:9].ljust(9, "0"))


def _target(member: tarfile.TarInfo) -> str:
    target = _filename(member.linkname)
    if not target or "\0" in target or len(os.fsencode(target)) > _LONGEST_LINK:
        raise ImageError(f'cannot unpack "{member.name}"', why="the target of a link is no path")
    return target


def _device(member: tarfile.TarInfo) -> tuple[int, int]:
    major, minor = member.devmajor, member.devminor
    if not (0 <= major < 1 << 12 and 0 <= minor < 1 << 20):
        raise ImageError(f'cannot unpack "{member.name}"', why=f"device {major}:{minor}")
    return major, minor


def _xattrs(member: tarfile.TarInfo) -> tuple[tuple[str, bytes], ...]:
    return tuple([
        (key[len(_XATTR) :], value.encode("utf-8", "surrogateescape"))
        for key, value in member.pax_headers.items()
        if key.startswith(_XATTR)
    ])  # fmt: skip
