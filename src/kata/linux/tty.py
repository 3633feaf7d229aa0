"""Pseudo-terminals (pty(7), ioctl_tty(2))."""

from __future__ import annotations

import os
from fcntl import ioctl

_TIOCSCTTY, _TIOCSWINSZ, _TIOCGPTN = 0x540E, 0x5414, 0x80045430
_TIOCSPTLCK, _TIOCGPTPEER = 0x40045431, 0x5441


def open_pair(ptmx: str) -> tuple[int, int, int]:
    """A new pseudo-terminal of the devpts that ``ptmx`` belongs to: master, slave, its number.

    The slave is opened through the master, so no path inside a container is trusted.
    """
    master = os.open(ptmx, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        number = int.from_bytes(ioctl(master, _TIOCGPTN, bytes(4)), "little")
        ioctl(master, _TIOCSPTLCK, bytes(4))
        slave = ioctl(master, _TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        os.close(master)
        raise
    return master, slave, number


def resize(fd: int, rows: int, columns: int) -> None:
    """Set the size of a terminal, in characters."""
    ioctl(fd, _TIOCSWINSZ, rows.to_bytes(2, "little") + columns.to_bytes(2, "little") + bytes(4))


def take(fd: int) -> None:
    """Make a terminal the controlling one of the session that the caller leads."""
    ioctl(fd, _TIOCSCTTY, 0)
