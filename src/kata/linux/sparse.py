"""Files with holes: copying what is there, giving back what is zero.

The one rule: a hole stays a hole. Source: lseek(2) SEEK_DATA, fallocate(2), copy_file_range(2).
"""

from __future__ import annotations

import ctypes
import errno
import os

from kata.linux.syscalls import libc

_KEEP_SIZE, _PUNCH_HOLE = 1, 2
_PAGE = 4096
_CHUNK = 1 << 20
_MFD_CLOEXEC = 1


def extents(fd: int) -> list[tuple[int, int]]:
    """(offset, length) of the parts of a file that are not holes."""
    found = []
    end, at = os.fstat(fd).st_size, 0
    while at < end:
        try:
            start = os.lseek(fd, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                break
            raise
        at = os.lseek(fd, start, os.SEEK_HOLE)
        found.append((start, at - start))
    return found


def copy(source: int, target: int) -> int:
    """Make ``target`` (empty, writable) a copy; gives the bytes copied. Raises ``OSError``."""
    os.ftruncate(target, os.fstat(source).st_size)
    total = 0
    for start, length in extents(source):
        at, end = start, start + length
        os.lseek(target, at, os.SEEK_SET)
        while at < end:
            sent = os.sendfile(target, source, at, end - at)
            if not sent:
                raise OSError(errno.EIO, "the file ended early")
            at += sent
        total += length
    return total


def punch(fd: int, offset: int, length: int) -> None:
    """Make a hole. Raises ``OSError``."""
    flags = ctypes.c_int(_KEEP_SIZE | _PUNCH_HOLE)
    if libc.fallocate(fd, flags, ctypes.c_long(offset), ctypes.c_long(length)) < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), "fallocate")


def punch_zeroes(fd: int) -> int:
    """Turn every page of zeroes into a hole; gives the bytes given back."""
    given = 0
    for start, length in extents(fd):
        for at in range(start, start + length, _CHUNK):
            data = os.pread(fd, min(_CHUNK, start + length - at), at)
            for offset, size in zero_runs(data):
                punch(fd, at + offset, size)
                given += size
    return given


def zero_runs(data: bytes) -> list[tuple[int, int]]:
    """(offset, length) of the runs of pages that are all zero."""
    runs: list[tuple[int, int]] = []
    nothing = bytes(_PAGE)
    for at in range(0, len(data) - _PAGE + 1, _PAGE):
        if data[at : at + _PAGE] == nothing:
            if runs and sum(runs[-1]) == at:
                runs[-1] = (runs[-1][0], runs[-1][1] + _PAGE)
            else:
                runs.append((at, _PAGE))
    return runs


def memory_copy(source: int, name: str) -> int:
    """A memfd (close-on-exec) that is a copy of a file. Raises ``OSError``."""
    target = os.memfd_create(name, _MFD_CLOEXEC)
    try:
        copy(source, target)
    except OSError:
        os.close(target)
        raise
    return target
