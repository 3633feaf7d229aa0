"""BPF programs as bytes: instructions, loading, and attaching to control groups.

The rule: whoever makes a program is pure; only ``load`` and ``attach`` talk to the kernel.
Source: linux/bpf.h, BPF instruction set (kernel documentation).
"""

from __future__ import annotations

import ctypes
import os
from _struct import Struct

from kata.linux.syscalls import SYS_BPF, syscall

_INSTRUCTION = Struct("<BBhi")
_PROG_LOAD, _PROG_ATTACH, _PROG_DETACH = 5, 8, 9
_ALLOW_MULTI = 2
_TRIES = 5  # as libbpf has it


def op(code: int, dst: int = 0, src: int = 0, offset: int = 0, value: int = 0) -> bytes:
    """One instruction."""
    return _INSTRUCTION.pack(code, src << 4 | dst, offset, value)


def load(kind: int, program: bytes, *, place: int = 0, what: str = "") -> int:
    """Load a program of a kind; ``place`` is where it may be attached. A descriptor of it.

    The kernel gives up with EAGAIN when a signal comes while it verifies. Raises ``OSError``.
    """
    code, name = ctypes.create_string_buffer(program), ctypes.create_string_buffer(b"GPL")
    attributes = Struct("<IIQQIIQII16sII").pack(
        kind, len(program) // 8, ctypes.addressof(code), ctypes.addressof(name),
        0, 0, 0, 0, 0, b"", 0, place,
    )  # fmt: skip
    for _ in range(_TRIES - 1):
        try:
            return syscall(SYS_BPF, _PROG_LOAD, attributes, len(attributes), what=f"load {what}")
        except BlockingIOError:
            continue
    return syscall(SYS_BPF, _PROG_LOAD, attributes, len(attributes), what=f"load {what}")


def attach(group: str, fd: int, place: int, *, replaces: int = -1, what: str = "") -> None:
    """Attach a program to a control group's directory, beside others.

    ``replaces`` is the descriptor of one attached before, which is detached after that.
    Raises ``OSError``.
    """
    directory = os.open(group, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        how = Struct("<IIII").pack(directory, fd, place, _ALLOW_MULTI)
        syscall(SYS_BPF, _PROG_ATTACH, how, len(how), what=f"attach {what}")
        if replaces >= 0:
            old = Struct("<IIII").pack(directory, replaces, place, 0)
            syscall(SYS_BPF, _PROG_DETACH, old, len(old), what=f"detach {what}")
    finally:
        os.close(directory)
