"""Reading ELF files: sections by name, the libraries a program needs, what a module says of itself.

The one rule: only 64-bit little-endian files are read, and nothing outside the file's bounds.
Format: the System V gABI, chapters 4 and 5.
"""

from __future__ import annotations

import struct

from kata.errors import ImageError

_DT_NEEDED = 1
_SHT_NOBITS = 8


class Elf:
    """The sections of one file. Raises ``ImageError`` if it is not such a file."""

    def __init__(self, data: bytes, name: str) -> None:
        self._data = data
        self._name = name
        if data[:6] != b"\x7fELF\x02\x01":
            raise ImageError(f'"{name}"', why="not a 64-bit little-endian ELF file")
        try:
            self._sections = self._read()
        except (struct.error, IndexError, OverflowError):
            raise ImageError(f'"{name}"', why="damaged ELF file") from None

    def _read(self) -> dict[str, tuple[int, int, int]]:
        (table,) = struct.unpack_from("<Q", self._data, 0x28)
        size, count, names = struct.unpack_from("<HHH", self._data, 0x3A)
        headers = [
            struct.unpack_from("<IIQQQQ", self._data, table + i * size) for i in range(count)
        ]
        (start, length) = headers[names][4:6] if count else (0, 0)
        strings = self._data[start : start + length]
        return {_string(strings, h[0]): (h[1], h[4], h[5]) for h in headers}

    def section(self, name: str) -> bytes:
        """The bytes of a section; empty where there is none."""
        kind, offset, size = self._sections.get(name, (_SHT_NOBITS, 0, 0))
        if kind == _SHT_NOBITS:
            return b""
        if offset + size > len(self._data):
            raise ImageError(f'"{self._name}"', why=f"section {name} ends beyond the file")
        return self._data[offset : offset + size]

    def needed(self) -> tuple[str, ...]:
        """The sonames of the shared libraries (``DT_NEEDED``), in order."""
        dynamic, strings = self.section(".dynamic"), self.section(".dynstr")
        pairs = struct.iter_unpack("<QQ", dynamic[: len(dynamic) & ~15])
        return tuple(_string(strings, value) for tag, value in pairs if tag == _DT_NEEDED)

    def interpreter(self) -> str:
        """The path of the program that loads it; empty for a static one."""
        return self.section(".interp").rstrip(b"\0").decode()

    def modinfo(self) -> dict[str, list[str]]:
        """What a kernel module says of itself: ``depends``, ``alias``, ``name``, ``softdep``, …."""
        found: dict[str, list[str]] = {}
        for item in self.section(".modinfo").split(b"\0"):
            key, separator, value = item.partition(b"=")
            if separator:
                found.setdefault(key.decode(), []).append(value.decode(errors="replace"))
        return found


def _string(table: bytes, offset: int) -> str:
    return table[offset:].partition(b"\0")[0].decode(errors="replace")
