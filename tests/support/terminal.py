"""A program under a terminal of ours: what a person would type and see."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import termios
import time


class Terminal:
    """A child with a controlling terminal; ``seen`` is all it has written."""

    def __init__(self, argv: list[str], env: dict[str, str], rows: int = 24, columns: int = 80):
        self.seen = b""
        self.pid, self.fd = pty.fork()
        if not self.pid:
            try:
                os.execve(argv[0], argv, env)
            finally:
                os._exit(127)
        self.resize(rows, columns)
        self.code: int | None = None

    def resize(self, rows: int, columns: int) -> None:
        """Change the size, as a window manager does."""
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def send(self, data: bytes) -> None:
        """Type."""
        os.write(self.fd, data)

    def _read(self, timeout: float) -> bool:
        """Read what is there; false at the end, or when nothing came in time."""
        if not select.select([self.fd], [], [], timeout)[0]:
            return False
        try:
            data = os.read(self.fd, 65536)
        except OSError:  # the other end is closed
            return False
        self.seen += data
        return bool(data)

    def expect(self, text: bytes, timeout: float = 60) -> bytes:
        """Wait for a text; gives what came before it, and forgets both."""
        deadline = time.monotonic() + timeout
        while text not in self.seen:
            left = deadline - time.monotonic()
            if left <= 0 or not self._read(left):
                raise AssertionError(f"{text!r} did not come; seen: {self.seen[-2000:]!r}")
        before, _, self.seen = self.seen.partition(text)
        return before

    def size(self, rows: int, columns: int, timeout: float = 20) -> None:
        """Ask the shell at the other end for its size until it is this one."""
        deadline = time.monotonic() + timeout
        found = b""
        while found != b"%d %d" % (rows, columns):
            assert time.monotonic() < deadline, f"the size is {found!r}"
            self.send(b'stty size; echo en""d\r')
            found = self.expect(b"\r\nend\r\n").split(b"\r\n")[-1].strip()

    def wait(self, timeout: float = 60) -> int:
        """Read to the end and give the exit code."""
        deadline = time.monotonic() + timeout
        while self.code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.code = os.waitstatus_to_exitcode(status)
            elif time.monotonic() > deadline:
                raise AssertionError(f"it did not end; seen: {self.seen[-2000:]!r}")
            self._read(0.05)
        while self._read(0):
            pass
        return self.code

    def close(self) -> None:
        """End it if it still runs, and let go of the terminal."""
        if self.code is None:
            os.kill(self.pid, 9)
            os.waitpid(self.pid, 0)
        os.close(self.fd)
