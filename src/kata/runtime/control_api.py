"""The supervisor's control API: messages and methods between command lines and a supervisor.

One service, ``kata.Control``, ttRPC over ``control.sock``. Standard streams never travel here:
the caller passes descriptors (SCM_RIGHTS) with ``Exec``, and the supervisor owns them.
The first process of the container has the exec id "" (empty).
"""

from __future__ import annotations

from kata.wire.agent_api import (
    Empty,
    ListProcessesResponse,
    ProcessRequest,
    ResizeRequest,
    SignalRequest,
    StatsResponse,
)
from kata.wire.protobuf import Message, boolean, bytes_, int32, int64, repeated, string, uint32

SERVICE = "kata.Control"


class StartedResponse(Message):
    """The container runs; ``sandbox`` is JSON: the facts of its virtual machine."""

    sandbox: bytes = bytes_(1)


class ExitResponse(Message):
    """How a process ended; ``timing`` is JSON: the marks of the start path."""

    exit_code: int = int32(1)
    signal: int = uint32(2)
    oom_killed: bool = boolean(3)
    finished_ns: int = int64(4)
    error: str = string(5)
    timing: bytes = bytes_(6)


class ExecRequest(Message):
    """Run one more process. ``streams`` says which of stdin (0), stdout, stderr are passed.

    Empty ``user``, ``cwd``: the container's. ``environment`` adds to the container's.
    """

    arguments: list[str] = repeated(string(1))
    environment: list[str] = repeated(string(2))
    cwd: str = string(3)
    user: str = string(4)
    terminal: bool = boolean(5)
    rows: int = uint32(6)
    columns: int = uint32(7)
    streams: list[int] = repeated(uint32(8))
    privileged: bool = boolean(9)


class ExecResponse(Message):
    """The id of the new process."""

    exec_id: str = string(1)
    pid: int = uint32(2)


class StopRequest(Message):
    """Send the stop signal, and SIGKILL after ``timeout`` seconds; answers when it has ended."""

    timeout: int = int32(1)
    signal: int = uint32(2)


class InspectResponse(Message):
    """JSON: what the supervisor knows of its sandbox."""

    sandbox: bytes = bytes_(1)


METHODS: dict[str, tuple[type[Message], type[Message]]] = {
    "Started": (Empty, StartedResponse),
    "Wait": (ProcessRequest, ExitResponse),
    "Signal": (SignalRequest, Empty),
    "Resize": (ResizeRequest, Empty),
    "Exec": (ExecRequest, ExecResponse),
    "Stop": (StopRequest, ExitResponse),
    "Pause": (Empty, Empty),
    "Resume": (Empty, Empty),
    "Stats": (Empty, StatsResponse),
    "Processes": (Empty, ListProcessesResponse),
    "Inspect": (Empty, InspectResponse),
}
