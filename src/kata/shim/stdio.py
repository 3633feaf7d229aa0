"""Where the standard streams of a process go: named pipes, files, or a logging program.

The rule: a pipe is held at both ends by us for as long as its process lives, so that a containerd
that restarts is felt by nobody: nothing ends, nothing breaks, and what was written waits.
Source: containerd ``runtime/v2/README.md`` (IO), ``pkg/process/io.go``.
"""

from __future__ import annotations

import os
import stat

from kata.errors import HostError, InvalidInput
from kata.wire.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_FIFO = os.O_NONBLOCK | os.O_CLOEXEC


@record
class Places:
    """The addresses that containerd gives; an empty one is the null device."""

    stdin: str = ""
    stdout: str = ""
    stderr: str = ""
    terminal: bool = False


class Stdio:
    """The open streams of one process."""

    def __init__(self) -> None:
        self.fds: dict[int, int] = {}  # by stream number; the core takes them over
        self._kept: list[int] = []
        self._input_end = -1  # while it is open, the process's input does not end

    def release(self) -> dict[int, int]:
        """Hand the descriptors of the streams over."""
        fds, self.fds = self.fds, {}
        return fds

    def close_input(self) -> None:
        """What is in the pipe is the last of the input."""
        if self._input_end >= 0:
            os.close(self._input_end)
            self._input_end = -1

    def close(self) -> None:
        """Let go of all that was not handed over."""
        self.close_input()
        for fd in (*self.fds.values(), *self._kept):
            os.close(fd)
        self.fds, self._kept = {}, []

    def input(self, path: str) -> None:
        """Read standard input from a pipe (whose writer may come and go), or another file."""
        self.fds[0] = _open(path, os.O_RDONLY | _FIFO)
        if stat.S_ISFIFO(os.fstat(self.fds[0]).st_mode):
            self._input_end = _open(path, os.O_WRONLY | _FIFO)

    def output(self, number: int, path: str) -> None:
        """Write a stream to a pipe: whose reader may come later, or come back."""
        kept = _open(path, os.O_RDONLY | _FIFO)
        self._kept.append(kept)
        if not stat.S_ISFIFO(os.fstat(kept).st_mode):
            raise InvalidInput(f'"{path}"', why="is no named pipe")
        self.fds[number] = _open(path, os.O_WRONLY | _FIFO)

    def file(self, number: int, path: str) -> None:
        """Append a stream to a file, which is made."""
        os.makedirs(os.path.dirname(path) or "/", mode=0o755, exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        self.fds[number] = _open(path, flags)

    def program(
        self, numbers: tuple[int, ...], uri: str, facts: dict[str, str], network: int
    ) -> None:
        """Give the streams to a logging program: descriptors 3 and 4; it closes 5 when ready."""
        from kata.shim.logger import start

        self.fds.update(start(numbers, uri, facts, network))


def open_streams(places: Places, facts: dict[str, str], network: int) -> Stdio:
    """Open what containerd named.

    ``facts`` are the environment of a logging program, ``network`` is its namespace.
    Raises ``InvalidInput`` for an address of no known kind, ``HostError``.
    """
    stdio = Stdio()
    try:
        if places.stdin:
            stdio.input(places.stdin)
        outputs = {1: places.stdout, 2: "" if places.terminal else places.stderr}
        numbers = tuple(number for number, where in outputs.items() if where)
        if numbers and outputs[numbers[0]].startswith("binary://"):
            stdio.program(numbers, outputs[numbers[0]], facts, network)
        else:
            for number in numbers:
                opener, path = _opener(stdio, outputs[number])
                opener(number, path)
    except BaseException:
        stdio.close()
        raise
    return stdio


def _opener(stdio: Stdio, where: str) -> tuple[Callable[[int, str], None], str]:
    scheme, colon, path = where.partition("://")
    if not colon:
        return stdio.output, where
    if scheme == "fifo":
        return stdio.output, path
    if scheme == "file":
        return stdio.file, path
    raise InvalidInput(f'"{where}"', why=f'unknown kind of stream "{scheme}"')


def _open(path: str, flags: int) -> int:
    try:
        return os.open(path, flags, 0o644)
    except OSError as error:
        raise HostError(f'cannot open "{path}"', why=error.strerror or "") from None
