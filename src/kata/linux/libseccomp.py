"""OCI's ``linux.seccomp`` to a BPF program, by libseccomp.

The one rule: the program is the one runc would load: the same rules, attributes and defaults, and
in front of it the same answer ``ENOSYS`` for system calls newer than any the profile knows
(otherwise new C libraries would read ``EPERM`` and not fall back to older calls). Only then is it
made smaller, with the same answers.
Source: runc's ``libcontainer/seccomp`` and ``patchbpf``; seccomp.h.
"""

from __future__ import annotations

import ctypes
import os
from _struct import Struct

from kata.errors import HostError, InvalidInput, Unsupported
from kata.linux.bpf_shrink import shrunk

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

LIBRARY = "libseccomp.so.2"
FLAG_LOG, FLAG_SPEC_ALLOW, FLAG_WAIT_KILLABLE = 2, 4, 32  # of seccomp(2)
_KILL_PROCESS, _KILL_THREAD, _TRAP, _ERRNO = 0x80000000, 0, 0x30000, 0x50000
_TRACE, _LOG, _ALLOW = 0x7FF00000, 0x7FFC0000, 0x7FFF0000
_EPERM, _EEXIST, _ENOSYS = 1, 17, 38
_ATTRIBUTE_NNP, _ATTRIBUTE_OPTIMIZE = 3, 8
_ACTIONS = {
    "SCMP_ACT_KILL": _KILL_THREAD, "SCMP_ACT_KILL_THREAD": _KILL_THREAD,
    "SCMP_ACT_KILL_PROCESS": _KILL_PROCESS, "SCMP_ACT_TRAP": _TRAP, "SCMP_ACT_ERRNO": _ERRNO,
    "SCMP_ACT_TRACE": _TRACE, "SCMP_ACT_LOG": _LOG, "SCMP_ACT_ALLOW": _ALLOW,
}  # fmt: skip
_OPERATORS = {
    "SCMP_CMP_NE": 1, "SCMP_CMP_LT": 2, "SCMP_CMP_LE": 3, "SCMP_CMP_EQ": 4, "SCMP_CMP_GE": 5,
    "SCMP_CMP_GT": 6, "SCMP_CMP_MASKED_EQ": 7,
}  # fmt: skip
_FLAGS = {"SECCOMP_FILTER_FLAG_LOG": FLAG_LOG, "SECCOMP_FILTER_FLAG_SPEC_ALLOW": FLAG_SPEC_ALLOW}
_AUDIT_X86_64, _AUDIT_I386, _X32_BIT = 0xC000003E, 0x40000003, 1 << 30
_MAX_INSTRUCTIONS = 4096  # BPF_MAXINSNS
_INSTRUCTION = Struct("=HBBI")
_LOAD, _JEQ, _JGT, _JSET, _RETURN = 0x20, 0x15, 0x25, 0x45, 0x06


class _Comparison(ctypes.Structure):
    _fields_ = (
        ("arg", ctypes.c_uint), ("op", ctypes.c_uint),
        ("a", ctypes.c_uint64), ("b", ctypes.c_uint64),
    )  # fmt: skip


class _Version(ctypes.Structure):
    _fields_ = (("major", ctypes.c_uint), ("minor", ctypes.c_uint), ("micro", ctypes.c_uint))


def _library() -> Any:
    try:
        library = ctypes.CDLL(LIBRARY)
    except OSError as error:
        raise HostError(
            "libseccomp cannot be loaded", why=str(error), hint="apt-get install libseccomp2"
        ) from None
    library.seccomp_init.restype = ctypes.c_void_p
    library.seccomp_version.restype = ctypes.POINTER(_Version)
    return library


def version() -> str:
    """The library's version. Raises ``HostError`` if it is not there."""
    found = _library().seccomp_version().contents
    return f"{found.major}.{found.minor}.{found.micro}"


def compiled(seccomp: dict[str, Any]) -> tuple[bytes, int]:
    """The BPF program of a ``linux.seccomp``, and the flags to load it with (of seccomp(2)).

    System calls the library does not know are left out, as runc does. Raises ``HostError``
    without the library, ``InvalidInput`` for a filter it refuses, ``Unsupported`` for a listener.
    """
    library = _library()
    default = _action(seccomp["defaultAction"], seccomp.get("defaultErrnoRet"))
    context = library.seccomp_init(ctypes.c_uint32(default))
    if not context:
        raise InvalidInput("seccomp filter", why="its default action is refused by libseccomp")
    handle = ctypes.c_void_p(context)
    try:
        architectures = _architectures(library, seccomp)
        flags = _prepare(library, handle, seccomp, architectures)
        for rule in seccomp.get("syscalls") or ():
            _add(library, handle, rule, default)
        program = _exported(library, handle)
    finally:
        library.seccomp_release(handle)
    program = shrunk(_stub(library, seccomp, architectures) + program)
    if len(program) // _INSTRUCTION.size > _MAX_INSTRUCTIONS:
        raise InvalidInput(
            "seccomp filter",
            why=f"{len(program) // 8} instructions, the kernel takes {_MAX_INSTRUCTIONS}",
        )
    return program, flags


def _action(name: str, errno: int | None) -> int:
    base = _ACTIONS.get(name)
    if base is None:
        raise Unsupported(f"seccomp action {name}")
    if base in (_ERRNO, _TRACE):
        return base | ((_EPERM if errno is None else errno) & 0xFFFF)
    return base


def _architectures(library: Any, seccomp: dict[str, Any]) -> dict[str, int]:
    """The libseccomp token of every architecture of a filter; the native one is always there."""
    native = library.seccomp_arch_native() & 0xFFFFFFFF
    found = {}
    for name in seccomp.get("architectures") or ():
        token = library.seccomp_arch_resolve_name(name.removeprefix("SCMP_ARCH_").lower().encode())
        if not token:
            raise InvalidInput("seccomp filter", why=f'libseccomp does not know "{name}"')
        found[name] = token & 0xFFFFFFFF
    if native not in found.values():
        found["native"] = native
    return found


def _prepare(
    library: Any, handle: ctypes.c_void_p, seccomp: dict[str, Any], architectures: dict[str, int]
) -> int:
    """Architectures and attributes; gives the flags of seccomp(2)."""
    for name, token in architectures.items():
        _check(library.seccomp_arch_add(handle, ctypes.c_uint32(token)), f"architecture {name}")
    flags = 0
    given = seccomp.get("flags")
    for name in ["SECCOMP_FILTER_FLAG_SPEC_ALLOW"] if given is None else given:
        if name in _FLAGS:
            flags |= _FLAGS[name]
        elif name != "SECCOMP_FILTER_FLAG_TSYNC":  # one thread only: nothing to synchronise
            raise Unsupported(f"seccomp flag {name}")
    attributes = {_ATTRIBUTE_NNP: 0}
    if (
        len(seccomp.get("syscalls") or ())
        and sum(len(r.get("names") or ()) for r in seccomp["syscalls"]) > 32
    ):
        attributes[_ATTRIBUTE_OPTIMIZE] = 2  # a binary tree
    for attribute, value in attributes.items():
        library.seccomp_attr_set(handle, ctypes.c_uint(attribute), ctypes.c_uint32(value))
    return flags


def _check(result: int, what: str) -> None:
    if result < 0 and result != -_EEXIST:
        raise InvalidInput(f"seccomp filter: {what}", why=os.strerror(-result))


def _add(library: Any, handle: ctypes.c_void_p, rule: dict[str, Any], default: int) -> None:
    action = _action(rule["action"], rule.get("errnoRet"))
    if action == default:
        return
    comparisons = [
        _Comparison(a["index"], _OPERATORS[a["op"]], a["value"], a.get("valueTwo") or 0)
        for a in rule.get("args") or ()
    ]
    indices = {c.arg for c in comparisons}
    # the same argument twice: libseccomp refuses it, runc makes alternatives of them
    sets = [comparisons] if len(indices) == len(comparisons) else [[c] for c in comparisons]
    for name in rule.get("names") or ():
        number = library.seccomp_syscall_resolve_name(name.encode())
        if number == -1:
            continue
        for chosen in sets:
            array = (_Comparison * len(chosen))(*chosen)
            result = library.seccomp_rule_add_array(
                handle, ctypes.c_uint32(action), ctypes.c_int(number),
                ctypes.c_uint(len(chosen)), array,
            )  # fmt: skip
            _check(result, f'rule for "{name}"')


def _exported(library: Any, handle: ctypes.c_void_p) -> bytes:
    fd = os.memfd_create("seccomp", os.MFD_CLOEXEC)
    try:
        _check(library.seccomp_export_bpf(handle, ctypes.c_int(fd)), "export")
        return os.pread(fd, os.fstat(fd).st_size, 0)
    finally:
        os.close(fd)


def _stub(library: Any, seccomp: dict[str, Any], architectures: dict[str, int]) -> bytes:
    """Instructions in front of the filter: ``ENOSYS`` for calls beyond the profile's last."""
    action, errno = seccomp["defaultAction"], seccomp.get("defaultErrnoRet")
    if action in ("SCMP_ACT_ALLOW", "SCMP_ACT_LOG", "SCMP_ACT_TRACE"):
        return b""
    if action == "SCMP_ACT_ERRNO" and errno == _ENOSYS:
        return b""
    names = [n.encode() for rule in seccomp.get("syscalls") or ()
             for n in rule.get("names") or ()]
    last = {}
    for token in set(architectures.values()):
        resolve = library.seccomp_syscall_resolve_name_arch
        numbers = [resolve(ctypes.c_uint32(token), name) for name in names]
        last[token] = max((n for n in numbers if n > 0), default=0)
    return enosys_stub(last)


def enosys_stub(last: dict[int, int]) -> bytes:
    """The stub for x86: the last system call by libseccomp's token (x32's is the bare ELF class).

    Every path either returns or falls through to what follows the stub.
    """
    x86_64, i386 = last.get(_AUDIT_X86_64, 0), last.get(_AUDIT_I386, 0)
    x32 = last.get(_AUDIT_X86_64 & ~0x80000000, 0)
    # (code, constant, label when true, label when false); "" is the next instruction
    code: list[tuple[str, int, int, str, str]] = [
        ("", _LOAD, 4, "", ""),  # the architecture
        ("", _JEQ, _AUDIT_X86_64, "64", ""),
        ("", _JEQ, _AUDIT_I386, "32", "filter"),
        ("64", _LOAD, 0, "", ""),  # the number of the system call
        ("", _JSET, _X32_BIT, "x32", ""),
        ("", _JGT, x86_64, "enosys" if x86_64 else "filter", "filter"),
        ("x32", _JGT, x32, "enosys" if x32 else "filter", "filter"),
        ("32", _LOAD, 0, "", ""),
        ("", _JGT, i386, "enosys" if i386 else "filter", "filter"),
        ("enosys", _RETURN, _ERRNO | _ENOSYS, "", ""),
    ]
    if not (x86_64 or i386 or x32):
        return b""
    places = {label: at for at, (label, *_) in enumerate(code) if label}
    places["filter"] = len(code)
    out = b""
    for at, (_, operation, constant, yes, no) in enumerate(code):
        jump = [places[label] - at - 1 if label else 0 for label in (yes, no)]
        out += _INSTRUCTION.pack(operation, *jump, constant)
    return out
