"""What an engine's command and its engine hand each other: streams, a terminal, a pid, a pidfd."""

from __future__ import annotations

import os
from _socket import AF_UNIX, SOCK_CLOEXEC, SOCK_STREAM

from kata.errors import HostError
from kata.linux import tty
from kata.linux.terminal import make_raw

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_NULL_DEVICE = os.makedev(1, 3)


def open_terminal(process: dict[str, Any]) -> tuple[int, int]:
    """A terminal for an engine, master and slave: the one in the guest sees to its modes."""
    master, slave, _ = tty.open_pair("/dev/ptmx")
    make_raw(slave)
    size = process.get("consoleSize") or {}
    if size.get("height") and size.get("width"):
        tty.resize(slave, size["height"], size["width"])
    return master, slave


def own_streams() -> dict[int, int]:
    """Our standard streams that are open and not the null device."""
    found = {}
    for number in range(3):
        try:
            status = os.fstat(number)
        except OSError:
            continue
        if status.st_rdev != _NULL_DEVICE or status.st_mode & 0o170000 != 0o020000:
            found[number] = number
    return found


def send_terminal(path: str, master: int) -> None:
    """Send a terminal's master over a unix socket, as runc does. Raises ``HostError``."""
    _send(path, master, b"/dev/ptmx", "console socket")


def send_pidfd(path: str, pid: int) -> None:
    """Send a pidfd of the stand-in over a unix socket. Raises ``HostError``."""
    pidfd = os.pidfd_open(pid)
    try:
        _send(path, pidfd, b"pidfd", "pidfd socket")
    finally:
        os.close(pidfd)


def _send(path: str, fd: int, data: bytes, what: str) -> None:
    from _socket import socket

    from kata.runtime.control import send_with_fds

    sock = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC)
    try:
        sock.connect(path)
        send_with_fds(sock, data, [fd])
    except OSError as error:
        raise HostError(f'{what} "{path}"', why=error.strerror or str(error)) from None
    finally:
        sock.close()


def write_pid_file(path: str, pid: int) -> None:
    """Write a pid so that a reader sees all of it or nothing. Raises ``HostError``."""
    temporary = f"{os.path.dirname(path) or '.'}/.{os.path.basename(path)}"
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
        os.write(fd, str(pid).encode())
        os.close(fd)
        os.rename(temporary, path)
    except OSError as error:
        raise HostError(f'cannot write the pid file "{path}"', why=error.strerror or "") from None
