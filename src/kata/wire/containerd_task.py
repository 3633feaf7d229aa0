"""containerd's Task API: ``containerd.task.v2.Task``; version 3 has the same messages.

Source: containerd's ``api/runtime/task/v2/shim.proto`` and ``api/types/task/task.proto``. In every
message ``id`` is the container's; an empty ``exec_id`` is its first process.
"""

from __future__ import annotations

from kata.wire.calls import Empty
from kata.wire.containerd_types import Mount, Timestamp
from kata.wire.protobuf import (
    Message,
    boolean,
    int32,
    mapping,
    nested,
    repeated,
    string,
    uint32,
)
from kata.wire.ttrpc import AnyMessage

UNKNOWN, CREATED, RUNNING, STOPPED, PAUSED, PAUSING = range(6)  # of ``StateResponse.status``


class TaskRequest(Message):
    """State, Delete, Start, Wait: names a process."""

    id: str = string(1)
    exec_id: str = string(2)


class ContainerRequest(Message):
    """Pids, Pause, Resume, Stats, Connect: names a container."""

    id: str = string(1)


class CreateRequest(Message):
    """Make a container of a bundle, and mount ``rootfs`` at its directory of that name."""

    id: str = string(1)
    bundle: str = string(2)
    rootfs: list[Mount] = repeated(nested(Mount, 3))
    terminal: bool = boolean(4)
    stdin: str = string(5)
    stdout: str = string(6)
    stderr: str = string(7)
    checkpoint: str = string(8)
    parent_checkpoint: str = string(9)
    options: AnyMessage | None = nested(AnyMessage, 10)


class PidResponse(Message):
    """Create, Start: the process on the host."""

    pid: int = uint32(1)


class DeleteResponse(Message):
    """How the process that was deleted had ended."""

    pid: int = uint32(1)
    exit_status: int = uint32(2)
    exited_at: Timestamp | None = nested(Timestamp, 3)


class ExecRequest(Message):
    """Take note of one more process (``spec`` is OCI's, as JSON); Start runs it."""

    id: str = string(1)
    exec_id: str = string(2)
    terminal: bool = boolean(3)
    stdin: str = string(4)
    stdout: str = string(5)
    stderr: str = string(6)
    spec: AnyMessage | None = nested(AnyMessage, 7)


class ResizeRequest(Message):
    """The size of a terminal, in characters."""

    id: str = string(1)
    exec_id: str = string(2)
    width: int = uint32(3)
    height: int = uint32(4)


class StateResponse(Message):
    """A process."""

    id: str = string(1)
    bundle: str = string(2)
    pid: int = uint32(3)
    status: int = int32(4)
    stdin: str = string(5)
    stdout: str = string(6)
    stderr: str = string(7)
    terminal: bool = boolean(8)
    exit_status: int = uint32(9)
    exited_at: Timestamp | None = nested(Timestamp, 10)
    exec_id: str = string(11)


class KillRequest(Message):
    """Send a signal to a process, or to all of the container."""

    id: str = string(1)
    exec_id: str = string(2)
    signal: int = uint32(3)
    all: bool = boolean(4)


class CloseIoRequest(Message):
    """No more standard input comes."""

    id: str = string(1)
    exec_id: str = string(2)
    stdin: bool = boolean(3)


class ProcessInfo(Message):
    """A process of the host."""

    pid: int = uint32(1)
    info: AnyMessage | None = nested(AnyMessage, 2)


class ProcessDetails(Message):
    """Which added process it is: ``containerd.runc.v1``, what clients know how to read."""

    exec_id: str = string(1)


class PidsResponse(Message):
    """The processes of the host that stand for a container's."""

    processes: list[ProcessInfo] = repeated(nested(ProcessInfo, 1))


class CheckpointRequest(Message):
    """Keep a container in a directory."""

    id: str = string(1)
    path: str = string(2)
    options: AnyMessage | None = nested(AnyMessage, 3)


class UpdateRequest(Message):
    """New limits: ``resources`` is OCI's linux.resources, as JSON."""

    id: str = string(1)
    resources: AnyMessage | None = nested(AnyMessage, 2)
    annotations: dict[str, str] = mapping(3)


class WaitResponse(Message):
    """How a process ended."""

    exit_status: int = uint32(1)
    exited_at: Timestamp | None = nested(Timestamp, 2)


class StatsResponse(Message):
    """Numbers of the kind that the host's version of control groups has."""

    stats: AnyMessage | None = nested(AnyMessage, 1)


class ConnectResponse(Message):
    """Who answers, and for which process of the host."""

    shim_pid: int = uint32(1)
    task_pid: int = uint32(2)
    version: str = string(3)


class ShutdownRequest(Message):
    """End, if no container is left."""

    id: str = string(1)
    now: bool = boolean(2)


METHODS: dict[str, tuple[type[Message], type[Message]]] = {
    "State": (TaskRequest, StateResponse),
    "Create": (CreateRequest, PidResponse),
    "Start": (TaskRequest, PidResponse),
    "Delete": (TaskRequest, DeleteResponse),
    "Pids": (ContainerRequest, PidsResponse),
    "Pause": (ContainerRequest, Empty),
    "Resume": (ContainerRequest, Empty),
    "Checkpoint": (CheckpointRequest, Empty),
    "Kill": (KillRequest, Empty),
    "Exec": (ExecRequest, Empty),
    "ResizePty": (ResizeRequest, Empty),
    "CloseIO": (CloseIoRequest, Empty),
    "Update": (UpdateRequest, Empty),
    "Wait": (TaskRequest, WaitResponse),
    "Stats": (ContainerRequest, StatsResponse),
    "Connect": (ContainerRequest, ConnectResponse),
    "Shutdown": (ShutdownRequest, Empty),
}
