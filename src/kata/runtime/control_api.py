"""The supervisor's control API: messages and methods between command lines and a supervisor.

One service, ``kata.Control``, ttRPC over ``control.sock``. Standard streams never travel here:
the caller passes descriptors (SCM_RIGHTS) with ``Exec``, and the supervisor owns them.
The first process of a container has the exec id "" (empty); an empty container id means the
container that the sandbox was started for.
"""

from __future__ import annotations

from kata.runtime.control_calls import CreateRequest as CreateRequest  # noqa: PLC0414 - part of it
from kata.runtime.control_calls import ExecRequest as ExecRequest  # noqa: PLC0414 - part of it
from kata.runtime.control_calls import ExecResponse as ExecResponse  # noqa: PLC0414 - part of it
from kata.runtime.control_calls import ExitResponse as ExitResponse  # noqa: PLC0414 - part of it
from kata.wire.agent_api import ListProcessesResponse, StatsResponse
from kata.wire.calls import (
    ContainerRequest,
    DeleteRequest,
    Empty,
    ProcessRequest,
    ResizeRequest,
    SignalRequest,
)
from kata.wire.protobuf import Message, bytes_, int32, repeated, string, uint32


class StartedResponse(Message):
    """The container runs; ``sandbox`` is JSON: the facts of its virtual machine."""

    sandbox: bytes = bytes_(1)


class StopRequest(Message):
    """Send the stop signal, and SIGKILL after ``timeout`` seconds; answers when it has ended."""

    timeout: int = int32(1)
    signal: int = uint32(2)
    container_id: str = string(3)


class UpdateRequest(Message):
    """Set new limits: ``resources`` is OCI's linux.resources (JSON)."""

    container_id: str = string(1)
    resources: bytes = bytes_(2)


class InspectResponse(Message):
    """JSON: what the supervisor knows of its sandbox."""

    sandbox: bytes = bytes_(1)


class PidsResponse(Message):
    """Processes of the host: the stand-ins of a container's processes."""

    pids: list[int] = repeated(uint32(1))


METHODS: dict[str, tuple[type[Message], type[Message]]] = {
    "Started": (Empty, StartedResponse),
    "HasWritten": (Empty, Empty),  # WrongState if the first process has not
    "Wait": (ProcessRequest, ExitResponse),
    "Signal": (SignalRequest, Empty),
    "Resize": (ResizeRequest, Empty),
    "Exec": (ExecRequest, ExecResponse),
    "Stop": (StopRequest, ExitResponse),
    "Pause": (ContainerRequest, Empty),
    "Resume": (ContainerRequest, Empty),
    "Stats": (ContainerRequest, StatsResponse),
    "Processes": (ContainerRequest, ListProcessesResponse),
    "Inspect": (Empty, InspectResponse),
    "Create": (CreateRequest, Empty),
    "Start": (ContainerRequest, Empty),
    "Delete": (DeleteRequest, Empty),
    "Update": (UpdateRequest, Empty),
    "Standins": (ContainerRequest, PidsResponse),
}
