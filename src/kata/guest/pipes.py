"""The descriptors between the agent and a child it makes, and what they say to each other.

``go`` carries the plan to a parked child (marshalled, with its length), and one byte that lets
the child execute the program. ``report`` carries what happened back: marshalled tuples, the first
item of which names the kind. It is closed by a successful execution, so its end without an
error means that the program runs.
"""

from __future__ import annotations

import marshal
import os
from fcntl import ioctl

from kata.errors import AgentError, KataError, from_wire, name_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

READY, TERMINAL, FAILED = "ready", "terminal", "failed"
_FIONREAD = 0x541B
_MAX_REPORT = 1 << 16
_MAX_PLAN = 8 << 20


class Pipes:
    """The pipes of one child: the agent's ends and the child's."""

    def __init__(self, stdin: bool, stdout: bool, stderr: bool) -> None:  # noqa: FBT001
        self.child_go, self.go = os.pipe()
        self.report, self.child_report = os.pipe()
        self.child_stdio = [-1, -1, -1]
        self.stdio = [-1, -1, -1]
        if stdin:
            self.child_stdio[0], self.stdio[0] = os.pipe()
        for number, wanted in ((1, stdout), (2, stderr)):
            if wanted:
                self.stdio[number], self.child_stdio[number] = os.pipe()
        for fd in (self.report, *self.stdio):
            if fd >= 0:
                os.set_blocking(fd, False)

    @classmethod
    def of(cls, plan: dict[str, Any]) -> Pipes:
        """Those that a plan's process needs: of a terminal's streams, none."""
        if plan["process"].get("terminal"):
            return cls(False, False, False)
        return cls(*plan["streams"])

    def child_ends(self) -> list[int]:
        """What the child must keep."""
        return [fd for fd in (self.child_go, self.child_report, *self.child_stdio) if fd >= 0]

    def close_child_ends(self) -> None:
        """In the agent, once the child is there."""
        for fd in self.child_ends():
            os.close(fd)

    def drop(self, number: int) -> None:
        """Close the agent's end of a standard stream that is not wanted."""
        if self.stdio[number] >= 0:
            os.close(self.stdio[number])
            self.stdio[number] = -1

    def close(self) -> None:
        """Close what the agent holds."""
        for number in range(3):
            self.drop(number)
        for fd in (self.go, self.report):
            if fd >= 0:
                os.close(fd)
        self.go = self.report = -1


def packed(body: bytes) -> bytes:
    """A plan or program as it is sent to a parked child: with its length."""
    return len(body).to_bytes(4, "little") + body


def send_plan(fd: int, plan: dict[str, Any]) -> None:
    """Hand a plan to a parked child. If it died meanwhile, its reports or its exit say so."""
    rest = memoryview(packed(marshal.dumps(plan)))
    try:
        while rest:
            rest = rest[os.write(fd, rest) :]
    except BrokenPipeError:
        pass


def receive_plan(fd: int) -> dict[str, Any] | None:
    """Wait for the plan (in the child); ``None`` if the agent is gone."""
    head = _read_exactly(fd, 4)
    size = int.from_bytes(head, "little")
    body = _read_exactly(fd, size) if head and size <= _MAX_PLAN else b""
    plan: dict[str, Any] | None = marshal.loads(body) if body else None
    return plan


def receive_program(fd: int) -> tuple[bytes, bool]:
    """Wait for a settled child's program (in the child), and whether it was let go with it.

    It is empty if the agent is gone.
    """
    data = os.read(fd, _MAX_REPORT)
    while data and len(data) < (end := 4 + int.from_bytes(data[:4], "little")):
        part = os.read(fd, end + 1 - len(data))
        data = data + part if part else b""
    return (data[4:end], len(data) > end) if data else (b"", False)


def _read_exactly(fd: int, size: int) -> bytes:
    parts = bytearray()
    while len(parts) < size:
        part = os.read(fd, size - len(parts))
        if not part:
            return b""
        parts += part
    return bytes(parts)


def is_let_go(fd: int) -> bool:
    """Whether the agent let the child go already (in the child)."""
    return ioctl(fd, _FIONREAD, bytes(4)) != bytes(4)


def report(fd: int, *what: str | int) -> None:
    """Tell the agent something (in the child)."""
    body = marshal.dumps(what)
    os.write(fd, len(body).to_bytes(4, "little") + body)


def report_failure(fd: int, error: KataError) -> None:
    """Tell the agent why there will be no process (in the child)."""
    what = (FAILED, error.code, name_of(error), str(error)[:4096], error.hint[:4096])
    report(fd, *what)


class Reports:
    """The agent's side of ``report``: bytes in, tuples out."""

    def __init__(self) -> None:
        self._buffer = b""

    def receive(self, data: bytes) -> list[tuple[Any, ...]]:
        """The reports that ``data`` completes. Raises ``AgentError`` if there is too much."""
        self._buffer += data
        found: list[tuple[Any, ...]] = []
        while len(self._buffer) >= 4:
            end = 4 + int.from_bytes(self._buffer[:4], "little")
            if end > _MAX_REPORT:
                raise AgentError("a container's set-up reported nonsense")
            if len(self._buffer) < end:
                break
            found.append(marshal.loads(self._buffer[4:end]))
            self._buffer = self._buffer[end:]
        return found


def failure_of(item: tuple[Any, ...]) -> KataError:
    """The error that a ``FAILED`` report stands for."""
    _, code, name, what, hint = item
    return from_wire(code, name, what, hint)
