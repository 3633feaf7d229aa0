"""Hand a process another file than the one it opens: seccomp's user notification.

The one rule: this is a way to *deliver* a descriptor, never a check. A program that insists on
opening a path for reading and writing is given the descriptor that we choose for an agreed path;
every other call goes on as if nothing was there.

Sources: seccomp_unotify(2), Documentation/userspace-api/seccomp_filter.rst, linux/seccomp.h.
"""

from __future__ import annotations

import fcntl
import os
from _struct import Struct

from kata.linux import syscalls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

FILTER_FLAG_NEW_LISTENER = 1 << 3
# Linux 5.19: once we have taken a notification, only a fatal signal ends the call it is about
_FILTER_FLAG_WAIT_KILLABLE_RECV = 1 << 5
_EINVAL = 22
_RET_ALLOW, _RET_USER_NOTIF = 0x7FFF0000, 0x7FC00000
_LOAD, _JUMP, _JUMP_EQUAL, _AND, _RETURN = 0x20, 0x05, 0x15, 0x54, 0x06
_ARCH_X86_64, _SYS_OPEN, _SYS_OPENAT = 0xC000003E, 2, 257

# struct seccomp_notif: id, pid, flags; seccomp_data: nr, arch, instruction pointer, 6 arguments
_NOTIF = Struct("=QIIiIQ6Q")
_NOTIF_RESP = Struct("=QqiI")  # id, val, error, flags
_NOTIF_ADDFD = Struct("=QIIII")  # id, flags, srcfd, newfd, newfd_flags
_IOC_RECV = 0xC0502100
_IOC_SEND = 0xC0182101
_IOC_ADDFD = 0x40182103
_RESP_FLAG_CONTINUE = 1
_ADDFD_FLAG_SEND = 2
_PATH_MAX = 4096
_AT_FDCWD = 0xFFFFFF9C  # -100, of 32 bits


def open_filter() -> bytes:
    """BPF that notifies of opens of paths with O_RDWR, and lets all else pass.

    What openat(2) takes from a directory that is open is none of ours: a VMM that serves files
    opens them so, and goes on doing it when nobody answers any more.
    """
    instruction = Struct("=HBBI")  # code, jump if true, jump if false, value
    program = (
        (_LOAD, 0, 0, 4),  # 0: seccomp_data.arch
        (_JUMP_EQUAL, 0, 11, _ARCH_X86_64),
        (_LOAD, 0, 0, 0),  # 2: seccomp_data.nr
        (_JUMP_EQUAL, 3, 0, _SYS_OPENAT),
        (_JUMP_EQUAL, 0, 8, _SYS_OPEN),
        (_LOAD, 0, 0, 24),  # 5: flags of open, its second argument
        (_JUMP, 0, 0, 3),
        (_LOAD, 0, 0, 16),  # 7: the directory of openat, its first argument
        (_JUMP_EQUAL, 0, 4, _AT_FDCWD),
        (_LOAD, 0, 0, 32),  # 9: flags of openat, its third argument
        (_AND, 0, 0, os.O_ACCMODE),
        (_JUMP_EQUAL, 0, 1, os.O_RDWR),
        (_RETURN, 0, 0, _RET_USER_NOTIF),
        (_RETURN, 0, 0, _RET_ALLOW),  # 13
    )
    return b"".join(instruction.pack(*i) for i in program)


def install() -> int:
    """Put the filter on this thread and what it executes; gives the listener (close-on-exec).

    Needs no_new_privs or CAP_SYS_ADMIN. Raises ``OSError``, EINVAL where the kernel lacks it.
    """
    flags = FILTER_FLAG_NEW_LISTENER
    try:
        return syscalls.seccomp_set_filter(open_filter(), flags | _FILTER_FLAG_WAIT_KILLABLE_RECV)
    except OSError as error:
        if error.errno != _EINVAL:
            raise
    return syscalls.seccomp_set_filter(open_filter(), flags)


def answer(listener: int, substitutes: Mapping[str, int]) -> str:
    """Take one notification: give it the descriptor for its path, or let the call go on.

    ``substitutes`` maps the paths, as the program spells them, to our descriptors. Gives the
    path that was substituted, or "". Raises ``OSError``; ENOENT: the call was broken off by a
    signal (it may come again) or with the process.
    """
    buffer = bytearray(_NOTIF.size)
    fcntl.ioctl(listener, _IOC_RECV, buffer)
    values = _NOTIF.unpack(buffer)
    number, thread, system_call, arguments = values[0], values[1], values[3], values[6:]
    path = _read_path(thread, arguments[0 if system_call == _SYS_OPEN else 1])
    fd = substitutes.get(path, -1)
    if fd < 0:
        response = _NOTIF_RESP.pack(number, 0, 0, _RESP_FLAG_CONTINUE)
        fcntl.ioctl(listener, _IOC_SEND, response)
        return ""
    added = _NOTIF_ADDFD.pack(number, _ADDFD_FLAG_SEND, fd, 0, os.O_CLOEXEC)
    fcntl.ioctl(listener, _IOC_ADDFD, added)
    return path


def _read_path(thread: int, address: int) -> str:
    """The string at ``address`` of a thread that stands in a system call; "" if there is none."""
    try:
        memory = os.open(f"/proc/{thread}/mem", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        head = os.pread(memory, min(_PATH_MAX, 4096 - address % 4096), address)
        if b"\0" not in head:
            head += os.pread(memory, _PATH_MAX - len(head), address + len(head))
        return os.fsdecode(head.partition(b"\0")[0])
    except OSError:
        return ""
    finally:
        os.close(memory)


def available() -> bool:
    """Whether the kernel can do this (5.14 or newer: answering and ending the call in one step)."""
    try:
        with open("/proc/sys/kernel/seccomp/actions_avail", encoding="utf-8") as file:
            known = "user_notif" in file.read().split()
    except OSError:
        return False
    release = os.uname().release.split(".")
    return known and release[0].isdigit() and (int(release[0]), _number(release[1])) >= (5, 14)


def _number(text: str) -> int:
    digits = ""
    for character in text:
        if not character.isdigit():
            break
        digits += character
    return int(digits or "0")
