"""The supervisor's control API: messages and methods between command lines and a supervisor.

One service, ``kata.Control``, ttRPC over ``control.sock``. Standard streams never travel here:
the caller passes descriptors (SCM_RIGHTS) with ``Exec``, and the supervisor owns them.
The first process of a container has the exec id "" (empty); an empty container id means the
container that the sandbox was started for.
"""

from __future__ import annotations

from kata.wire.agent_api import (
    ListProcessesResponse,
    ProcessRequest,
    ResizeRequest,
    StatsResponse,
)
from kata.wire.calls import ContainerRequest, DeleteRequest, Empty, SignalRequest
from kata.wire.protobuf import Message, boolean, bytes_, int32, int64, repeated, string, uint32


class StartedResponse(Message):
    """The container runs; ``sandbox`` is JSON: the facts of its virtual machine."""

    sandbox: bytes = bytes_(1)


class ExitResponse(Message):
    """How a process ended; ``timing`` is JSON: the marks of the start path.

    ``output_error``: why not all of its output could be written; ``log_error``: why its log is
    not complete.
    """

    exit_code: int = int32(1)
    signal: int = uint32(2)
    oom_killed: bool = boolean(3)
    finished_ns: int = int64(4)
    error: str = string(5)
    timing: bytes = bytes_(6)
    output_error: str = string(7)
    log_error: str = string(8)


class ExecRequest(Message):
    """Run one more process. ``streams`` says which of stdin (0), stdout, stderr are passed.

    Empty ``user``, ``cwd``: the container's. ``environment`` adds to the container's. With
    ``process`` (OCI's process object, JSON) that is what runs, and only ``streams`` counts beside
    it. ``pid`` is the stand-in of the process, if it has one: it ends when that is killed.
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
    container_id: str = string(10)
    process: bytes = bytes_(11)
    pid: int = uint32(12)


class ExecResponse(Message):
    """The id of the new process."""

    exec_id: str = string(1)
    pid: int = uint32(2)


class StopRequest(Message):
    """Send the stop signal, and SIGKILL after ``timeout`` seconds; answers when it has ended."""

    timeout: int = int32(1)
    signal: int = uint32(2)
    container_id: str = string(3)


class CreateRequest(Message):
    """Make a container in the sandbox; answered when its process waits to be started.

    ``spec`` is the engine's config.json, ``pid`` the stand-in, ``streams`` the standard streams
    that are passed. The first container of a sandbox is known to its supervisor: of that one
    only ``container_id``, ``pid`` and ``streams`` count. The sandbox adds the container to its
    state directory, and owns it from then on.
    """

    container_id: str = string(1)
    spec: bytes = bytes_(2)
    state: bytes = bytes_(3)
    pid: int = uint32(4)
    streams: list[int] = repeated(uint32(5))


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
