"""System calls that Python 3.11's ``os`` does not have, through ``ctypes``.

Every wrapper raises ``OSError`` with the errno and names what it was called with. Constants are
those of the kernel's user-space headers for x86-64 (the numbers of system calls differ elsewhere).
"""

from __future__ import annotations

import ctypes
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_SYNCHRONOUS, MS_REMOUNT = 1, 2, 4, 8, 16, 32
MS_MANDLOCK, MS_DIRSYNC, MS_NOSYMFOLLOW, MS_NOATIME, MS_NODIRATIME = 64, 128, 256, 1024, 2048
MS_BIND, MS_MOVE, MS_REC, MS_SILENT, MS_POSIXACL = 4096, 8192, 16384, 32768, 1 << 16
MS_UNBINDABLE, MS_PRIVATE, MS_SLAVE, MS_SHARED = 1 << 17, 1 << 18, 1 << 19, 1 << 20
MS_RELATIME, MS_I_VERSION, MS_STRICTATIME, MS_LAZYTIME = 1 << 21, 1 << 23, 1 << 24, 1 << 25
MNT_FORCE, MNT_DETACH, MNT_EXPIRE, UMOUNT_NOFOLLOW = 1, 2, 4, 8

CLONE_NEWTIME, CLONE_FS, CLONE_NEWNS, CLONE_NEWCGROUP = 0x80, 0x200, 0x20000, 0x02000000
CLONE_NEWUTS, CLONE_NEWIPC, CLONE_NEWUSER = 0x04000000, 0x08000000, 0x10000000
CLONE_NEWPID, CLONE_NEWNET, CLONE_PARENT = 0x20000000, 0x40000000, 0x8000

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_KEEPCAPS, PR_SET_NAME = 1, 4, 8, 15
PR_CAPBSET_READ, PR_CAPBSET_DROP, PR_SET_SECUREBITS = 23, 24, 28
PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS, PR_CAP_AMBIENT = 36, 38, 47
PR_CAP_AMBIENT_RAISE, PR_CAP_AMBIENT_CLEAR_ALL = 2, 4

SYS_PIVOT_ROOT, SYS_CAPSET, SYS_CLONE, SYS_SECCOMP, SYS_FINIT_MODULE = 155, 126, 56, 317, 313
SYS_SETNS, SYS_PIDFD_SEND_SIGNAL, SYS_OPENAT2, SYS_PIDFD_GETFD = 308, 424, 437, 438
SYS_MOUNT_SETATTR, SYS_OPEN_TREE, SYS_MOVE_MOUNT, SYS_CLOSE_RANGE = 442, 428, 429, 436
SYS_IOPRIO_SET, SYS_PERSONALITY, SYS_SCHED_SETATTR = 251, 135, 314
SYS_FSOPEN, SYS_FSCONFIG, SYS_FSMOUNT = 430, 431, 432

SECCOMP_SET_MODE_FILTER = 1
_SIGCHLD = 17
SYS_CLONE3, _CLONE_INTO_CGROUP = 435, 0x200000000
_CAPABILITY_VERSION_3 = 0x20080522

libc = ctypes.CDLL(None, use_errno=True)
_held = ctypes.PyDLL(None, use_errno=True)  # keeps the interpreter lock: for calls that fork
_text = os.fsencode


def _check(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)
    return result


def syscall(number: int, *arguments: int | bytes | None, what: str = "") -> int:
    """A raw system call; integers are passed as 64 bits wide. Raises ``OSError``."""
    wide = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    return _check(libc.syscall(ctypes.c_long(number), *wide), what or f"system call {number}")


def mount(
    source: str, target: str, fstype: str | None, flags: int = 0, data: str | None = None
) -> None:
    """mount(2)."""
    result = libc.mount(
        _text(source), _text(target), _text(fstype) if fstype else None,
        ctypes.c_ulong(flags), _text(data) if data else None,
    )  # fmt: skip
    _check(result, f"mount {source} on {target}")


def umount(target: str, flags: int = 0) -> None:
    """umount2(2)."""
    _check(libc.umount2(_text(target), flags), f"umount {target}")


def pivot_root(new_root: str, put_old: str) -> None:
    """pivot_root(2)."""
    syscall(SYS_PIVOT_ROOT, _text(new_root), _text(put_old), what=f"pivot_root {new_root}")


def unshare(flags: int) -> None:
    """unshare(2)."""
    _check(libc.unshare(flags), f"unshare {flags:#x}")


def setns(fd: int, kind: int) -> None:
    """setns(2); ``kind`` is a CLONE_NEW* flag or 0."""
    _check(libc.setns(fd, kind), f"setns {kind:#x}")


def sethostname(name: str) -> None:
    """sethostname(2)."""
    data = _text(name)
    _check(libc.sethostname(data, len(data)), f"sethostname {name}")


def setdomainname(name: str) -> None:
    """setdomainname(2)."""
    data = _text(name)
    _check(libc.setdomainname(data, len(data)), f"setdomainname {name}")


def prctl(option: int, *arguments: int | bytes) -> int:
    """prctl(2)."""
    wide = [ctypes.c_ulong(a) if isinstance(a, int) else a for a in arguments]
    wide += [ctypes.c_ulong(0)] * (4 - len(wide))
    return _check(libc.prctl(option, *wide), f"prctl {option}")


def capset(effective: int, permitted: int, inheritable: int) -> None:
    """capset(2) on the calling thread, from three 64-bit masks."""
    header = _CAPABILITY_VERSION_3.to_bytes(4, "little") + bytes(4)
    sets = (effective, permitted, inheritable)
    low = b"".join((s & 0xFFFFFFFF).to_bytes(4, "little") for s in sets)
    high = b"".join((s >> 32).to_bytes(4, "little") for s in sets)
    syscall(SYS_CAPSET, header, low + high, what="capset")


def clone(flags: int, cgroup: int = -1) -> int:
    """fork(2) into new namespaces: the child's pid, or 0 in the child.

    With ``cgroup`` the child is born in that control group (a directory of version 2). The
    interpreter lock is kept across the call, but no at-fork handlers run: only for a process with
    a single thread, whose child soon executes a program or leaves with ``os._exit``.
    """
    if cgroup >= 0:
        # struct clone_args: flags, pidfd, child_tid, parent_tid, exit_signal, …, cgroup
        words = (flags | _CLONE_INTO_CGROUP, 0, 0, 0, _SIGCHLD, 0, 0, 0, 0, 0, cgroup)
        data = b"".join(word.to_bytes(8, "little") for word in words)
        result = _held.syscall(ctypes.c_long(SYS_CLONE3), data, ctypes.c_size_t(len(data)))
        return _check(result, f"clone3 {flags:#x}")
    result = _held.syscall(
        ctypes.c_long(SYS_CLONE), ctypes.c_ulong(flags | _SIGCHLD),
        ctypes.c_void_p(0), ctypes.c_void_p(0), ctypes.c_void_p(0), ctypes.c_ulong(0),
    )  # fmt: skip
    return _check(result, f"clone {flags:#x}")


def hold_still() -> None:
    """Wait to be killed, by the parent or by its end; the interpreter lock is kept.

    For a child of ``clone`` whose parent may have other threads: no lock of theirs is touched.
    """
    _held.prctl(PR_SET_PDEATHSIG, ctypes.c_ulong(9))
    _held.pause()


class _SockFprog(ctypes.Structure):
    _fields_ = (("len", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def seccomp_set_filter(bpf: bytes, flags: int = 0) -> int:
    """seccomp(2) SECCOMP_SET_MODE_FILTER; gives a descriptor if ``flags`` ask for a listener."""
    program = _SockFprog(len(bpf) // 8, bpf)
    result = libc.syscall(
        ctypes.c_long(SYS_SECCOMP), ctypes.c_uint(SECCOMP_SET_MODE_FILTER),
        ctypes.c_uint(flags), ctypes.byref(program),
    )  # fmt: skip
    return _check(result, "seccomp")


def personality(persona: int) -> int:
    """personality(2): the previous persona."""
    return _check(libc.personality(ctypes.c_ulong(persona)), f"personality {persona:#x}")


def close_range(first: int, last: int = 0xFFFFFFFF) -> None:
    """close_range(2): close every descriptor from ``first`` to ``last``."""
    syscall(SYS_CLOSE_RANGE, first, last, 0, what="close_range")


RESOLVE_NO_XDEV, RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS = 1, 2, 4
RESOLVE_BENEATH, RESOLVE_IN_ROOT = 8, 16
MOUNT_ATTR_RDONLY, MOUNT_ATTR_NOSUID, MOUNT_ATTR_NODEV, MOUNT_ATTR_NOEXEC = 1, 2, 4, 8
MOUNT_ATTR_NOATIME, MOUNT_ATTR_STRICTATIME, MOUNT_ATTR_ATIME = 0x10, 0x20, 0x70
MOUNT_ATTR_NODIRATIME, MOUNT_ATTR_NOSYMFOLLOW = 0x80, 0x200000
AT_FDCWD, AT_RECURSIVE, AT_EMPTY_PATH = -100, 0x8000, 0x1000
RB_POWER_OFF, RB_AUTOBOOT = 0x4321FEDC, 0x01234567
SYS_KEYCTL, SYS_REBOOT, SYS_BPF = 250, 169, 321


def openat2(directory: int, path: str, flags: int, mode: int = 0, resolve: int = 0) -> int:
    """openat2(2): a descriptor that is closed on exec."""
    numbers = (flags | os.O_CLOEXEC, mode, resolve)
    how = b"".join(n.to_bytes(8, "little") for n in numbers)
    return syscall(SYS_OPENAT2, directory, _text(path), how, len(how), what=f"open {path}")


def mount_setattr(
    path: str, flags: int, attributes: int, clear: int = 0, *, directory: int = AT_FDCWD,
    propagation: int = 0,
) -> None:  # fmt: skip
    """mount_setattr(2); ``flags`` may be ``AT_RECURSIVE`` and ``AT_EMPTY_PATH``."""
    attr = b"".join(n.to_bytes(8, "little") for n in (attributes, clear, propagation, 0))
    what = f"mount_setattr {path}"
    syscall(SYS_MOUNT_SETATTR, directory, _text(path), flags, attr, len(attr), what=what)


MOUNT_ATTR_IDMAP = 0x100000


def map_ids(tree: int, users: int, *, recursive: bool = False) -> None:
    """mount_setattr(2): give a detached mount the id map of a user namespace (by descriptor)."""
    flags = AT_EMPTY_PATH | (AT_RECURSIVE if recursive else 0)
    attr = b"".join(n.to_bytes(8, "little") for n in (MOUNT_ATTR_IDMAP, 0, 0, users))
    syscall(SYS_MOUNT_SETATTR, tree, b"", flags, attr, len(attr), what="map ids")


def open_tree(path: str, *, recursive: bool = False) -> int:
    """open_tree(2): a detached copy of the mount at ``path``."""
    flags = 1 | os.O_CLOEXEC | (AT_RECURSIVE if recursive else 0)  # 1: OPEN_TREE_CLONE
    return syscall(SYS_OPEN_TREE, AT_FDCWD, _text(path), flags, what=f"bind {path}")


def move_mount(tree: int, target: int) -> None:
    """move_mount(2): attach a detached mount onto an open target."""
    empty_paths = 0x4 | 0x40
    syscall(SYS_MOVE_MOUNT, tree, b"", target, b"", empty_paths, what="move_mount")


def pidfd_getfd(pidfd: int, fd: int) -> int:
    """pidfd_getfd(2): a copy (closed on exec) of another process's descriptor."""
    return syscall(SYS_PIDFD_GETFD, pidfd, fd, 0, what="pidfd_getfd")


def finit_module(fd: int, parameters: str = "") -> None:
    """finit_module(2): load a kernel module from an open file."""
    syscall(SYS_FINIT_MODULE, fd, _text(parameters), 0, what="finit_module")


def reboot(command: int) -> None:
    """reboot(2) with one of the ``RB_*`` commands; does not sync first."""
    _check(libc.reboot(ctypes.c_int(command - (1 << 32) if command >> 31 else command)), "reboot")


_OPEN_TREE_CLONE, _OPEN_TREE_CLOEXEC = 1, 0o2000000
_MOVE_MOUNT_F_EMPTY_PATH = 4


def clone_tree(fd: int, attributes: int, *, recursive: bool = False) -> int:
    """open_tree(2): a detached, private copy of the mount at ``fd``, MOUNT_ATTR_* set on it.

    The descriptor returned is all there is of it: no mount table shows it, and closing it ends it.
    """
    flags = AT_EMPTY_PATH | (AT_RECURSIVE if recursive else 0)
    tree = syscall(
        SYS_OPEN_TREE, fd, b"", flags | _OPEN_TREE_CLONE | _OPEN_TREE_CLOEXEC, what="open_tree"
    )
    try:
        mount_setattr("", flags, attributes, directory=tree, propagation=MS_PRIVATE)
    except OSError:
        os.close(tree)
        raise
    return tree


def new_mount(fstype: str, settings: Iterable[tuple[str, str]]) -> int:
    """fsopen(2), fsconfig(2), fsmount(2): a file system that is mounted nowhere.

    ``settings`` are (key, value), value empty for a flag; a value has at most 255 bytes.
    """
    context = syscall(SYS_FSOPEN, _text(fstype), 1, what=f"fsopen {fstype}")  # FSOPEN_CLOEXEC
    try:
        for key, value in settings:
            command, text = (1, _text(value)) if value else (0, None)  # SET_STRING, SET_FLAG
            syscall(SYS_FSCONFIG, context, command, _text(key), text, 0, what=f"{fstype} {key}")
        syscall(SYS_FSCONFIG, context, 6, None, None, 0, what=fstype)  # CMD_CREATE
        return syscall(SYS_FSMOUNT, context, 1, 0, what=f"fsmount {fstype}")  # FSMOUNT_CLOEXEC
    finally:
        os.close(context)


def attach_tree(tree: int, target: str) -> None:
    """move_mount(2): attach a detached mount tree at a path."""
    syscall(
        SYS_MOVE_MOUNT, tree, b"", AT_FDCWD, _text(target), _MOVE_MOUNT_F_EMPTY_PATH,
        what=f"move_mount {target}",
    )  # fmt: skip
