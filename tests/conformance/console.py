"""The caller's end of a terminal: a console socket, and the descriptor that comes over it."""

from __future__ import annotations

import fcntl
import os
import select
import socket
import struct
import termios
import time
from typing import Self

from conformance.runtime import decoded

PATIENCE = 60


class Console:
    """A listening socket as conmon has one; then the terminal itself."""

    def __init__(self, directory: str) -> None:
        self.path = f"{directory}/console.sock"
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(self.path)
        self._listener.listen()
        self._listener.settimeout(PATIENCE)
        self.fd = -1
        self.message = b""
        self.seen = b""

    def __enter__(self) -> Self:
        """Itself; the sockets are closed at the end."""
        return self

    def __exit__(self, *_exception: object) -> None:
        """Let go of the terminal."""
        self._listener.close()
        if self.fd >= 0:
            os.close(self.fd)

    def accept(self) -> None:
        """Take the descriptor that was sent."""
        connection = self._listener.accept()[0]
        with connection:
            connection.settimeout(PATIENCE)
            self.message, fds, _, _ = socket.recv_fds(connection, 4096, 4)
        assert len(fds) == 1, f"{len(fds)} descriptors came"
        self.fd = fds[0]

    def send(self, data: bytes) -> None:
        """Type."""
        os.write(self.fd, data)

    def expect(self, text: bytes) -> str:
        """Read until a text came; all that was seen, which is then forgotten."""
        deadline = time.monotonic() + PATIENCE
        while text not in self.seen:
            assert self._read(deadline - time.monotonic()), f"{text!r} not in {self.seen[-500:]!r}"
        seen, self.seen = self.seen, b""
        return decoded(seen)

    def drain(self) -> str:
        """Read until the other end is closed."""
        deadline = time.monotonic() + PATIENCE
        while self._read(deadline - time.monotonic()):
            pass
        assert time.monotonic() < deadline, "the terminal stays open"
        return decoded(self.seen)

    def _read(self, timeout: float) -> bool:
        if not select.select([self.fd], [], [], max(0, timeout))[0]:
            return False
        try:
            data = os.read(self.fd, 65536)
        except OSError:  # the last other end was closed
            return False
        self.seen += data
        return bool(data)

    def resize(self, rows: int, columns: int) -> None:
        """Change the size, as an engine does when its user's window changes."""
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns."""
        data = fcntl.ioctl(self.fd, termios.TIOCGWINSZ, bytes(8))
        rows, columns, _, _ = struct.unpack("HHHH", data)
        return rows, columns
