"""Resource limits by name (setrlimit(2)); no import of the ``resource`` extension is needed."""

from __future__ import annotations

import ctypes

from kata.errors import InvalidInput
from kata.linux.syscalls import syscall

_SYS_PRLIMIT64 = 302
# asm-generic/resource.h
NAMES = (
    "CPU", "FSIZE", "DATA", "STACK", "CORE", "RSS", "NPROC", "NOFILE", "MEMLOCK", "AS", "LOCKS",
    "SIGPENDING", "MSGQUEUE", "NICE", "RTPRIO", "RTTIME",
)  # fmt: skip
INFINITY = (1 << 64) - 1


def number_of(name: str) -> int:
    """The number of ``RLIMIT_NOFILE`` and the like. Raises ``InvalidInput``."""
    try:
        return NAMES.index(name.removeprefix("RLIMIT_"))
    except ValueError:
        raise InvalidInput(f'unknown resource limit "{name}"') from None


def lift(number: int, hard: int) -> None:
    """Raise the hard limit of this process to at least ``hard``, while it has the right to."""
    old = ctypes.create_string_buffer(16)
    what = f"get RLIMIT_{NAMES[number]}"
    syscall(_SYS_PRLIMIT64, 0, number, None, ctypes.addressof(old), what=what)
    soft, most = (int.from_bytes(old.raw[n : n + 8], "little") for n in (0, 8))
    if hard > most:
        apply(number, soft, hard)


def apply(number: int, soft: int, hard: int, pid: int = 0) -> None:
    """Set a limit of a process (0: this one)."""
    value = soft.to_bytes(8, "little") + hard.to_bytes(8, "little")
    what = f"set RLIMIT_{NAMES[number]} to {soft}:{hard}"
    syscall(_SYS_PRLIMIT64, pid, number, value, None, what=what)
