"""Compressed streams to plain ones: gzip, zstd, bzip2, xz or none, told by their first bytes.

The one rule: whatever the data, a read gives at most what was asked for, and damage or a cut is
an ``ImageError``; decompression never holds more than a few MiB.
"""

from __future__ import annotations

import contextlib

from kata.errors import HostError, ImageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import IO, Any, Protocol

    class Readable(Protocol):
        """What gives bytes, and ``b""`` at its end."""

        def read(self, size: int, /) -> bytes:
            """Up to ``size`` bytes."""


_MAGIC = (
    (b"\x1f\x8b\x08", "gzip"), (b"\x28\xb5\x2f\xfd", "zstd"), (b"BZh", "bzip2"),
    (b"\xfd7zXZ\x00", "xz"),
)  # fmt: skip
_CHUNK = 1 << 18
_XZ_MEMORY = 1 << 28


def detect(head: bytes) -> str:
    """The compression that data with this beginning has, ``none`` if no known one."""
    if head[1:4] == b"\x2a\x4d\x18" and 0x50 <= head[0] <= 0x5F:
        return "zstd"  # a skippable frame goes first (zstd:chunked)
    return next((name for magic, name in _MAGIC if head.startswith(magic)), "none")


@contextlib.contextmanager
def opened(file: IO[bytes]) -> Iterator[Readable]:
    """The plain content of a file (which has a descriptor) from its beginning.

    Raises ``ImageError`` on damage, ``HostError`` where zstd is needed and missing.
    """
    file.seek(0)
    kind = detect(file.read(6))
    file.seek(0)
    if kind == "zstd":
        with _zstd(file) as stream:
            yield stream
    elif kind == "none":
        yield file
    else:
        yield _Stream(file, kind)


class _Stream:
    """One or more compressed members after each other, as one stream."""

    def __init__(self, file: IO[bytes], kind: str) -> None:
        self._file = file
        self._kind = kind
        self._new, self._errors = _decoder(kind)
        self._decoder: Any = self._new()
        self._pending = b""
        self._ended = False

    def read(self, size: int, /) -> bytes:
        while not self._ended:
            try:
                data = self._step(size)
            except self._errors as error:
                raise _damaged(self._kind, str(error)) from None
            if data:
                return data
        return b""

    def _step(self, size: int) -> bytes:
        decoder = self._decoder
        if decoder.eof:
            return self._next_member(decoder.unused_data)
        if not self._pending and getattr(decoder, "needs_input", True):
            self._pending = self._file.read(_CHUNK)
            exhausted = not self._pending
        else:
            exhausted = False
        data: bytes = decoder.decompress(self._pending, size)  # may hold output of earlier input
        self._pending = getattr(decoder, "unconsumed_tail", b"")
        if exhausted and not data and not decoder.eof:
            raise _damaged(self._kind, "the data end too early")
        return data

    def _next_member(self, rest: bytes) -> bytes:
        """Go on after the end of a member; padding of zeros may follow, nothing else."""
        while not rest.strip(b"\0"):
            rest = self._file.read(_CHUNK)
            if not rest:
                self._ended = True
                return b""
        self._decoder = self._new()
        self._pending = rest.lstrip(b"\0")
        return b""


def _decoder(kind: str) -> tuple[Callable[[], Any], tuple[type[Exception], ...]]:
    if kind == "gzip":
        import zlib

        return lambda: zlib.decompressobj(31), (zlib.error,)
    if kind == "bzip2":
        import bz2

        return bz2.BZ2Decompressor, (OSError, EOFError, ValueError)
    import lzma

    return lambda: lzma.LZMADecompressor(memlimit=_XZ_MEMORY), (lzma.LZMAError, EOFError)


@contextlib.contextmanager
def _zstd(file: IO[bytes]) -> Iterator[Readable]:
    import os
    import subprocess

    os.lseek(file.fileno(), 0, os.SEEK_SET)  # what the child reads from, whatever is buffered here
    try:
        process = subprocess.Popen(
            ["zstd", "-d", "-c", "-q", "--no-progress"],
            stdin=file.fileno(), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
    except FileNotFoundError:
        raise HostError(
            "cannot decompress zstd", why='there is no program "zstd"', hint="apt install zstd"
        ) from None
    with process:
        try:
            yield _Checked(process)
        finally:
            process.kill()


class _Checked:
    """The output of a process, whose end counts only if the process was content."""

    def __init__(self, process: Any) -> None:
        self._process = process

    def read(self, size: int, /) -> bytes:
        data: bytes = self._process.stdout.read(size)
        if not data and size:
            message = self._process.stderr.read(4096).decode(errors="replace").strip()
            if self._process.wait():
                raise _damaged("zstd", message.rpartition(":")[2].strip() or "it is damaged")
        return data


def _damaged(kind: str, why: str) -> ImageError:
    return ImageError(f"cannot decompress {kind} data", why=why)
