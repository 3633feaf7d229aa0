"""The seccomp filter of a container, compiled once and kept.

The one rule: the way to a kept filter reads one small file and touches neither libseccomp nor a
profile; a kept filter is named by everything it depends on, and used only if it is ours and whole.
"""

from __future__ import annotations

import os
from _struct import Struct
from zlib import crc32

from kata.errors import InvalidInput
from kata.wire.agent_api import Seccomp

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from typing import Any

_HEADER = Struct("<8sIII")  # magic, flags of seccomp(2), length and checksum of the program
_MAGIC = b"KATABPF2"
_KEEP = 64  # filters kept; what is older goes when a new one is made
_PROFILE_LIMIT = 1 << 20
_ARCHITECTURE = "amd64"
_LIBRARY_PATHS = ("/usr/lib/x86_64-linux-gnu", "/lib/x86_64-linux-gnu", "/usr/lib64", "/usr/lib")


def container_filter(
    option: str, capabilities: Collection[str], kernel_release: str, *, data_root: str
) -> Seccomp | None:
    """The filter that ``--security-opt seccomp=OPTION`` means; None is no filter.

    ``option`` is empty for the default profile, ``unconfined``, or the path of a profile;
    ``capabilities`` is the bounding set, ``kernel_release`` the guest's.
    Raises ``InvalidInput`` for a bad profile, ``HostError`` without libseccomp.
    """
    if option == "unconfined":
        return None
    if option:
        text = _file(option)
        source, identity = option, text
    else:
        source = f"{os.path.dirname(os.path.dirname(os.path.abspath(__file__)))}/oci"
        source += "/seccomp_default.json"
        text, identity = b"", _stamp(source).encode()

    def compile_() -> tuple[bytes, int] | None:
        from kata.oci.seccomp_profile import kernel_version, parse, resolved

        kernel = kernel_version(kernel_release)
        profile = parse(text or _file(source), source)
        seccomp = resolved(profile, capabilities, kernel=kernel, architecture=_ARCHITECTURE)
        return None if seccomp is None else _compiled(seccomp)

    about = f"{kernel_release} {' '.join(sorted(capabilities))}"
    return _kept(_key(identity, about), compile_, f"{data_root}/cache/seccomp")


def spec_filter(seccomp: dict[str, Any], *, data_root: str) -> Seccomp:
    """The filter of a checked ``linux.seccomp``. Raises as ``container_filter`` does."""
    from kata.oci.seccomp_profile import refuse_listener
    from kata.wire.quickjson import dumps

    refuse_listener(seccomp, seccomp)
    found = _kept(
        _key(dumps(seccomp).encode(), ""), lambda: _compiled(seccomp), f"{data_root}/cache/seccomp"
    )
    assert found is not None
    return found


def _compiled(seccomp: dict[str, Any]) -> tuple[bytes, int]:
    from kata.linux.libseccomp import compiled

    return compiled(seccomp)


def _file(path: str) -> bytes:
    what = f'seccomp profile "{path}"'
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise InvalidInput(what, why=str(error.strerror).lower()) from None
    try:
        data = os.read(fd, _PROFILE_LIMIT + 1)
    except OSError as error:
        raise InvalidInput(what, why=str(error.strerror).lower()) from None
    finally:
        os.close(fd)
    if len(data) > _PROFILE_LIMIT:
        raise InvalidInput(what, why=f"larger than {_PROFILE_LIMIT} bytes")
    return data


def _stamp(path: str) -> str:
    """What changes when a file does; empty if it is not there."""
    try:
        status = os.stat(path)
    except OSError:
        return ""
    return f"{path} {status.st_mtime_ns} {status.st_size} {status.st_ino}"


def _library_stamp() -> str:
    return next((s for d in _LIBRARY_PATHS if (s := _stamp(f"{d}/libseccomp.so.2"))), "")


def _key(identity: bytes, about: str) -> str:
    from kata.wire.digest import sha256

    rest = f"\0{_MAGIC!r} {_ARCHITECTURE} {_library_stamp()} {about}"
    return str(sha256(identity + rest.encode()).hexdigest())


def _kept(
    key: str, compile_: Callable[[], tuple[bytes, int] | None], directory: str
) -> Seccomp | None:
    path = f"{directory}/{key}"
    found = _read(path)
    if found is not None:
        return found
    made = compile_()
    if made is None:
        return None
    program, flags = made
    _write(path, _HEADER.pack(_MAGIC, flags, len(program), crc32(program)) + program)
    return Seccomp(bpf=program, flags=flags)


def _read(path: str) -> Seccomp | None:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        status = os.fstat(fd)
        if status.st_uid != os.geteuid() or status.st_mode & 0o177777 != 0o100600:
            return None
        data = os.read(fd, 1 << 20)
    finally:
        os.close(fd)
    if len(data) < _HEADER.size:
        return None
    magic, flags, length, checksum = _HEADER.unpack_from(data)
    program = data[_HEADER.size :]
    if magic != _MAGIC or length != len(program) or checksum != crc32(program):
        return None
    return Seccomp(bpf=program, flags=flags)


def _write(path: str, data: bytes) -> None:
    """Keep a filter; a full or read-only disk only costs time later."""
    directory = os.path.dirname(path)
    temporary = f"{path}.{os.getpid()}"
    try:
        os.makedirs(directory, 0o700, exist_ok=True)
        _prune(directory)
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.fchmod(fd, 0o600)
            os.write(fd, data)
        finally:
            os.close(fd)
        os.rename(temporary, path)
    except OSError:
        return


def _prune(directory: str) -> None:
    with os.scandir(directory) as entries:
        ages = sorted((e.stat(follow_symlinks=False).st_mtime_ns, e.path) for e in entries)
    for _, path in ages[: max(0, len(ages) - _KEEP + 1)]:
        os.unlink(path)
