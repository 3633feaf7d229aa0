"""Reading a program and its libraries into the page cache, before a freeze (in the child).

The rule: only reads, bounded, and whatever is odd about a file is passed over: this saves time
and decides nothing.
"""

from __future__ import annotations

import os
from stat import S_ISREG

_LOAD, _DYNAMIC, _INTERPRETER = 1, 2, 3
_NEEDED, _STRINGS = 1, 5
_MOST_FILES, _MOST_BYTES, _MOST_SEGMENTS, _MOST_TABLE = 48, 96 << 20, 64, 4096
_PLACES = (
    "/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu", "/lib64", "/usr/lib64", "/lib",
    "/usr/lib", "/usr/local/lib",
)  # fmt: skip
_CACHE = "/etc/ld.so.cache"


def program(path: str) -> None:
    """Read the file at ``path`` and, as far as they are found, all it is loaded with."""
    wanted, seen, left = [path], {path}, _MOST_BYTES
    while wanted and len(seen) <= _MOST_FILES and left > 0:
        data = _read(wanted.pop(), left)
        left -= len(data)
        found = _references(data)
        if found and _CACHE not in seen:
            found.append(_CACHE)
        new = [name for name in map(_located, found) if name and name not in seen]
        seen.update(new)
        wanted += new


def _read(path: str, most: int) -> bytes:
    """The content of a regular file, b"" of anything else."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError:
        return b""
    parts: list[bytes] = []
    try:
        if S_ISREG(os.fstat(fd).st_mode):
            while most > 0 and (part := os.read(fd, min(most, 1 << 20))):
                parts.append(part)
                most -= len(part)
    except OSError:
        pass
    finally:
        os.close(fd)
    return b"".join(parts)


def _located(name: str) -> str:
    """The path of a library; "" if it is nowhere."""
    if "/" in name:
        return name
    return next((p for d in _PLACES if os.path.exists(p := f"{d}/{name}")), "")


def _references(data: bytes) -> list[str]:
    """What a file names to be loaded with it: the interpreter of a script or program, libraries."""
    if data[:2] == b"#!":
        words = data[2:256].partition(b"\n")[0].split()
        return [words[0].decode("utf-8", "surrogateescape")] if words else []
    try:
        return _of_elf(data) if data[:6] == b"\x7fELF\x02\x01" else []
    except ValueError:
        return []


def _of_elf(data: bytes) -> list[str]:
    start, size = _number(data, 32, 8), _number(data, 54, 2)
    count = min(_number(data, 56, 2), _MOST_SEGMENTS)
    segments = [_segment(data, start + n * size) for n in range(count)]
    names: list[str] = []
    for kind, offset, _, length in segments:
        if kind == _INTERPRETER:
            names.append(_text(data, offset))
        elif kind == _DYNAMIC:
            names += _needed(data[offset : offset + length], data, segments)
    return names


def _number(data: bytes, at: int, size: int) -> int:
    return int.from_bytes(data[at : at + size], "little")


def _segment(data: bytes, at: int) -> tuple[int, int, int, int]:
    """Of an Elf64_Phdr, elf(5): type, offset, address, size in the file."""
    offset, address, length = (_number(data, at + field, 8) for field in (8, 16, 32))
    return _number(data, at, 4), offset, address, length


def _needed(table: bytes, data: bytes, segments: list[tuple[int, int, int, int]]) -> list[str]:
    """The names of libraries in an array of Elf64_Dyn (tag, value)."""
    places = range(0, min(len(table), _MOST_TABLE), 16)
    entries = [(_number(table, n, 8), _number(table, n + 8, 8)) for n in places]
    strings = next((value for tag, value in entries if tag == _STRINGS), -1)
    for kind, offset, address, length in segments:
        if kind == _LOAD and address <= strings < address + length:
            base = strings - address + offset
            return [_text(data, base + value) for tag, value in entries if tag == _NEEDED]
    return []


def _text(data: bytes, at: int) -> str:
    return data[at : data.index(b"\0", at)].decode("utf-8", "surrogateescape")
