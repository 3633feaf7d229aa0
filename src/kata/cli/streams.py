"""Which descriptors of a command line become the standard streams of a process in a container.

The rule: what was opened here is closed here; the caller's own three stay as they are.
"""

from __future__ import annotations

import os


class StandardStreams:
    """Which descriptors the supervisor gets for the standard streams, and the relays of terminals.

    ``relay`` leads to stdin (-1: none); ``outputs`` are pipes to read, with where each one goes:
    none unless ``relayed``.
    """

    def __init__(self, *, interactive: bool, terminal: bool, relayed: bool = False) -> None:
        self._opened: list[int] = []
        self.relay = -1
        self.outputs: dict[int, int] = {}
        self.stdin = self._stdin() if interactive else -1
        self._direct = terminal or not relayed
        self.stdout = self._output(1)
        self.stderr = -1 if terminal else self._output(2)

    def _output(self, fd: int) -> int:
        if not _is_open(fd):
            return self._null(os.O_WRONLY)
        if self._direct or not os.isatty(fd):
            return fd
        if self.outputs and os.fstat(1).st_rdev == os.fstat(2).st_rdev:
            writer = os.dup(self.stdout)  # one terminal, one pipe: nothing overtakes
        else:
            reader, writer = os.pipe2(os.O_CLOEXEC)
            self.outputs[reader] = fd
        self._opened.append(writer)
        return writer

    def _stdin(self) -> int:
        if not _is_open(0):
            return self._null(os.O_RDONLY)
        if not os.isatty(0):
            return 0
        reader, self.relay = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self.relay, False)
        self._opened.append(reader)
        return reader

    def _null(self, flags: int) -> int:
        fd = os.open("/dev/null", flags | os.O_CLOEXEC)
        self._opened.append(fd)
        return fd

    def wanted(self) -> list[tuple[int, int]]:
        """(stream, descriptor) of those to pass, in order."""
        pairs = enumerate((self.stdin, self.stdout, self.stderr))
        return [(stream, fd) for stream, fd in pairs if fd >= 0]

    def handed_over(self) -> None:
        """The supervisor has its copies: close ours."""
        while self._opened:
            os.close(self._opened.pop())


def _is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True
