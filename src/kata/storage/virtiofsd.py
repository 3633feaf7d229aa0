"""The virtio-fs daemon's command line, for the two daemons that distributions have.

The one rule: pure but for ``find`` and ``kind_of``, which look at the program. QEMU up to 7.2
brought one written in C (``/usr/lib/qemu/virtiofsd``), later systems the one in Rust.
Sources: ``virtiofsd --help`` of QEMU 7.2; virtiofsd 1.10's README and ``--help``.
"""

from __future__ import annotations

import os

from kata.errors import HostError
from kata.wire.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

C, RUST = "c", "rust"
_PLACES = (
    "/usr/libexec/virtiofsd", "/usr/lib/qemu/virtiofsd", "/usr/lib/virtiofsd",
    "/usr/libexec/qemu/virtiofsd",
)  # fmt: skip
# of both, "coherent" trusts nothing that was read before; in C files can still be mapped shared
_CACHE_C = {
    "auto": "auto", "coherent": "auto,timeout=0", "never": "none", "always": "always",
}  # fmt: skip
_CACHE_RUST = {"coherent": "never"}
_HINT = "install virtiofsd (Debian 13 and newer) or qemu-system-common (Debian 12)"
_WITHOUT = 'see virtio_fs_daemon in the settings; shared_fs = "auto" can do without'


@record
class Serving:
    """How the daemon serves: ``directory`` is its root, ``socket`` a listening descriptor.

    ``cache`` is ``auto``, ``coherent``, ``never`` or ``always``; ``threads`` beside the one that
    reads requests.
    """

    directory: str
    socket: int
    cache: str = "auto"
    threads: int = 0
    extra: tuple[str, ...] = ()


def virtiofsd_arguments(kind: str, program: str, serving: Serving) -> tuple[str, ...]:
    """The daemon's argument vector.

    File locks stay the guest's own: the daemon cannot wait for a lock, so programs that do would
    fail. Mounts inside the share are announced, so that equal inode numbers are told apart.
    """
    if kind == C:
        options = (
            f"source={serving.directory}", "sandbox=chroot", f"cache={_CACHE_C[serving.cache]}",
            "xattr", "announce_submounts", "no_posix_lock", "no_flock", "log_level=warn",
        )  # fmt: skip
        return (
            program, "-f", f"--fd={serving.socket}", f"--thread-pool-size={serving.threads}",
            "--rlimit-nofile=0", "-o", ",".join(options), *serving.extra,
        )  # fmt: skip
    return (
        program, f"--fd={serving.socket}", f"--shared-dir={serving.directory}", "--sandbox=chroot",
        f"--cache={_CACHE_RUST.get(serving.cache, serving.cache)}", "--xattr",
        "--announce-submounts", "--seccomp=kill",
        f"--thread-pool-size={serving.threads}", "--rlimit-nofile=0", "--log-level=warn",
        *serving.extra,
    )  # fmt: skip


def kind_from_version(text: str) -> str:
    """Which daemon prints ``text`` for ``--version``; "" if it is none of the known."""
    words = text.split()
    if words[:2] == ["virtiofsd", "version"] and "QEMU" in text:
        return C
    return RUST if words[:1] == ["virtiofsd"] else ""


def find(configured: str = "", places: Sequence[str] = _PLACES) -> str:
    """The daemon's path: the configured one, or the first there is. Raises ``HostError``."""
    for path in (configured,) if configured else places:
        if os.access(path, os.X_OK):
            return path
    if configured:
        why = f'"{configured}" is not a program'
        raise HostError("no virtio-fs daemon", why=why, hint=_WITHOUT)
    raise HostError("no virtio-fs daemon", why="no virtiofsd is installed", hint=_HINT)


def kind_of(program: str, memory: str = "") -> str:
    """``C`` or ``RUST``: what ``program`` says of itself, kept in the file ``memory`` if given.

    The answer holds as long as the program's file is the same. Raises ``HostError``.
    """
    status = os.stat(program)
    identity = f"{program} {status.st_dev} {status.st_ino} {status.st_size} {status.st_mtime_ns}"
    if memory:
        known, _, kind = _read(memory).rpartition(" ")
        if known == identity and kind in (C, RUST):
            return kind
    kind = kind_from_version(_version(program))
    if not kind:
        raise HostError(f'"{program}"', why="it does not say that it is virtiofsd", hint=_HINT)
    if memory:
        _write(memory, f"{identity} {kind}")
    return kind


def _version(program: str) -> str:
    """What it prints for ``--version``."""
    reader, writer = os.pipe()
    try:
        actions = ((os.POSIX_SPAWN_DUP2, writer, 1), (os.POSIX_SPAWN_DUP2, writer, 2))
        pid = os.posix_spawn(program, [program, "--version"], {}, file_actions=actions)
    except OSError as error:
        os.close(reader)
        raise HostError(f'"{program}"', why=error.strerror or str(error)) from None
    finally:
        os.close(writer)
    with open(reader, encoding="utf-8", errors="replace") as stream:
        text = stream.read(4096)
    os.waitpid(pid, 0)
    return text


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            return stream.read(4096)
    except OSError:
        return ""


def _write(path: str, text: str) -> None:
    """Keep ``text``; not being able to is no harm."""
    part = f"{path}.{os.getpid()}"
    try:
        os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
        with open(part, "w", encoding="utf-8") as stream:
            stream.write(text)
        os.replace(part, path)
    except OSError:
        pass
