"""What kind of file system a descriptor is on: statfs(2), which ``os.fstatvfs`` leaves out."""

from __future__ import annotations

import ctypes
from _struct import Struct

from kata.linux.syscalls import syscall

_SYS_FSTATFS = 138
_SIZE = 120
_HEAD = Struct("<qqQ")  # f_type, f_bsize, f_blocks


def filesystem(fd: int) -> tuple[int, int]:
    """Magic number and size in bytes. Raises ``OSError``."""
    buffer = ctypes.create_string_buffer(_SIZE)
    syscall(_SYS_FSTATFS, fd, ctypes.addressof(buffer), what="fstatfs")
    kind, block, blocks = _HEAD.unpack_from(buffer.raw)
    return kind, block * blocks
