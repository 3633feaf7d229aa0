"""Terminals of the host, those of people and of engines: raw mode and size."""

from __future__ import annotations

import fcntl
import os
import termios

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def size(fd: int) -> tuple[int, int]:
    """Rows and columns of a terminal, (0, 0) if unknown."""
    try:
        raw = fcntl.ioctl(fd, termios.TIOCGWINSZ, bytes(8))
    except OSError:
        return 0, 0
    return int.from_bytes(raw[0:2], "little"), int.from_bytes(raw[2:4], "little")


def raw_mode(attributes: list[Any]) -> list[Any]:
    """The attributes of cfmakeraw(3), from the present ones."""
    iflag, oflag, cflag, lflag, ispeed, ospeed, cc = attributes
    iflag &= ~(
        termios.IGNBRK | termios.BRKINT | termios.PARMRK | termios.ISTRIP
        | termios.INLCR | termios.IGNCR | termios.ICRNL | termios.IXON
    )  # fmt: skip
    oflag &= ~termios.OPOST
    lflag &= ~(termios.ECHO | termios.ECHONL | termios.ICANON | termios.ISIG | termios.IEXTEN)
    cflag = cflag & ~(termios.CSIZE | termios.PARENB) | termios.CS8
    cc = list(cc)
    cc[termios.VMIN], cc[termios.VTIME] = 1, 0
    return [iflag, oflag, cflag, lflag, ispeed, ospeed, cc]


def make_raw(fd: int) -> None:
    """Let bytes pass as they are: who interprets them is elsewhere."""
    termios.tcsetattr(fd, termios.TCSANOW, raw_mode(termios.tcgetattr(fd)))


class RawTerminal:
    """A terminal in raw mode until ``restore``."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._saved = termios.tcgetattr(fd)
        self.enter()

    def enter(self) -> None:
        """(Again) raw: also after the process was stopped and the shell had the terminal."""
        try:
            termios.tcsetattr(self._fd, termios.TCSANOW, raw_mode(self._saved))
        except termios.error:
            pass  # it was hung up: whoever reads it sees its end

    def restore(self) -> None:
        """As it was."""
        try:
            termios.tcsetattr(self._fd, termios.TCSADRAIN, self._saved)
        except termios.error:
            pass  # the terminal was hung up


def is_terminal(fd: int) -> bool:
    """Whether a descriptor is a terminal; false if it is closed."""
    try:
        return os.isatty(fd)
    except OSError:
        return False
