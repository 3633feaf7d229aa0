"""Copies of sparse files into memory: only what is there is copied.

The one rule: holes stay holes, so that a copy costs what was written, not what was reserved.
Sources: lseek(2) SEEK_DATA and SEEK_HOLE, sendfile(2), memfd_create(2).
"""

from __future__ import annotations

import errno
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_MOST = 1 << 30  # bytes for one call


def extents(fd: int, size: int) -> Iterator[tuple[int, int]]:
    """(begin, end) of the parts of a file, up to ``size``, that are not holes."""
    end = 0
    while end < size:
        try:
            begin = os.lseek(fd, end, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # nothing but a hole is left
                return
            raise
        if begin >= size:
            return
        end = min(os.lseek(fd, begin, os.SEEK_HOLE), size)
        yield begin, end


def copy_sparse(source_fd: int, size: int, name: str = "copy") -> int:
    """A memfd (close-on-exec, read-write) of ``size`` bytes with the data of ``source_fd``.

    The position of ``source_fd`` is moved. Raises ``OSError``; a source that ends early is one.
    """
    copy = os.memfd_create(name, os.MFD_CLOEXEC)
    try:
        os.ftruncate(copy, size)
        for begin, end in extents(source_fd, size):
            os.lseek(copy, begin, os.SEEK_SET)
            while begin < end:
                sent = os.sendfile(copy, source_fd, begin, min(end - begin, _MOST))
                if not sent:
                    raise OSError(errno.EIO, "the file got shorter while it was copied")
                begin += sent
    except BaseException:
        os.close(copy)
        raise
    return copy
