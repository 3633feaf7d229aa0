"""A directory tree to a read-only EROFS file, by ``mkfs.erofs``.

The one rule: the same tree gives the same bytes: the file system's uuid is fixed, its own time is
one that the tree has, and times, owners and extended attributes are kept as they are.
"""

from __future__ import annotations

import os

from kata.errors import HostError, ImageError
from kata.linux.syscalls import PR_SET_PDEATHSIG, prctl

_PROGRAM = "mkfs.erofs"
_NO_UUID = "00000000-0000-0000-0000-000000000000"
_LONG_NAMES = "erofs-utils 1.5 cannot store file names of 255 bytes; newer ones can"
_FULL = ("no space left", "(-28)", "error -28", "enospc")


def build(tree: str, target: str, *, newest: int) -> int:
    """Make the file ``target`` of a directory; gives its size in bytes.

    ``newest`` is the latest time in the tree, in seconds: later ones would be cut to it.
    Raises ``HostError``.
    """
    import subprocess

    command = [_PROGRAM, "--quiet", "-U", _NO_UUID, "-x", "1", target, tree]
    # mkfs.erofs takes the file system's time from here, and cuts later times to it
    environment = dict(os.environ, SOURCE_DATE_EPOCH=str(max(newest, 1)), LC_ALL="C")
    try:
        done = subprocess.run(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE, check=False, preexec_fn=die_with_parent,
        )  # fmt: skip
    except FileNotFoundError:
        raise HostError(
            f'cannot store images: there is no program "{_PROGRAM}"',
            hint="apt install erofs-utils",
        ) from None
    if done.returncode:
        message = done.stderr.decode(errors="replace").strip()
        why = message.rpartition("\n")[2] or f"it ended with code {done.returncode}"
        if _is_full(message, target):
            raise no_space(os.path.dirname(target))
        raise ImageError(
            f'"{_PROGRAM}" failed', why=why[:500],
            hint=_LONG_NAMES if "[error 2]" in message.lower() else "",
        )  # fmt: skip
    return settle(target)


def settle(path: str) -> int:
    """Bring a finished file to disk, for root to read alone; gives its size in bytes."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fchmod(fd, 0o400)
        os.fsync(fd)
        return os.fstat(fd).st_size
    finally:
        os.close(fd)


def _is_full(message: str, target: str) -> bool:
    if any(word in message.lower() for word in _FULL):
        return True
    free = os.statvfs(os.path.dirname(target))
    return free.f_bavail * free.f_frsize < 1 << 16


def no_space(path: str) -> HostError:
    """The error for a disk that filled up on the way."""
    return HostError(
        "cannot store the image",
        why=f'no space left on the file system of "{path}"',
        hint="free some space (kata image prune), or choose another with --data-root",
    )


def die_with_parent() -> None:
    """For ``preexec_fn``: the child does not outlive us."""
    prctl(PR_SET_PDEATHSIG, 9)
