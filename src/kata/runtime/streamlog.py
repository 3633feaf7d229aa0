"""The log of a container's output: kubelet's CRI format, byte-exact, bounded by rotation.

A line is ``TIMESTAMP STREAM F|P TEXT``; ``P`` marks a piece of a line that goes on in the next
entry. Source: https://github.com/kubernetes/design-proposals-archive/blob/main/node/kubelet-cri-logging.md
"""

from __future__ import annotations

import _thread
import os
import time
from errno import ENOSPC

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_BYTES = 32 << 20
_MAX_LINE = 16 << 10


def timestamp(ns: int) -> str:
    """RFC 3339 with nanoseconds, UTC."""
    seconds, rest = divmod(ns, 1_000_000_000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{rest:09d}Z"


def entries(stream: str, data: bytes, stamp: str) -> bytes:
    """The log entries for a piece of output."""
    head = f"{stamp} {stream} ".encode()
    out: list[bytes] = []
    for line in _pieces(data):
        mark = b"F " if line.endswith(b"\n") else b"P "
        out += (head, mark, line.removesuffix(b"\n"), b"\n")
    return b"".join(out)


def _pieces(data: bytes) -> Iterator[bytes]:
    for line in _split(data):
        for at in range(0, len(line), _MAX_LINE):
            yield line[at : at + _MAX_LINE]


def _split(data: bytes) -> Iterator[bytes]:
    """The lines with their newlines (``splitlines`` would also split at carriage returns)."""
    lines = data.split(b"\n")
    for line in lines[:-1]:
        yield line + b"\n"
    if lines[-1]:
        yield lines[-1]


class StreamLog:
    """Appends to a log file; keeps at most two files of ``MAX_BYTES`` (``log`` and ``log.1``)."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._lock = _thread.allocate_lock()
        self.failure = ""  # why something is missing, if something is
        self._fd = self._open()
        self._size = 0

    def _open(self) -> int:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_TRUNC
        try:
            return os.open(self._path, flags, 0o600)
        except OSError as error:
            self._failed(error)
            return -1

    def _failed(self, error: OSError) -> None:
        self.failure = self.failure or error.strerror or str(error)

    def write(self, stream: str, data: bytes) -> None:
        """Log a piece of output; a full disk loses log lines, never the container."""
        piece = entries(stream, data, timestamp(time.time_ns()))
        with self._lock:
            if self._fd < 0:
                return
            try:
                if self._size + len(piece) > MAX_BYTES:
                    self._rotate()
                written = os.write(self._fd, piece)
                if written < len(piece):
                    os.ftruncate(self._fd, self._size)  # no half entry
                    raise OSError(ENOSPC, os.strerror(ENOSPC))
                self._size += written
            except OSError as error:
                self._failed(error)

    def _rotate(self) -> None:
        os.rename(self._path, f"{self._path}.1")
        os.close(self._fd)
        self._fd = self._open()
        self._size = 0

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            if self._fd >= 0:
                os.close(self._fd)
