"""What a shim tells containerd by itself: events of tasks, in an envelope, over ttRPC.

Source: containerd's ``api/events/task.proto``, ``api/types/event.proto`` and
``api/services/ttrpc/events/v1/events.proto``.
"""

from __future__ import annotations

from kata.wire.containerd_types import Mount, Timestamp
from kata.wire.protobuf import Message, boolean, nested, repeated, string, uint32
from kata.wire.ttrpc import AnyMessage


class TaskIO(Message):
    """Where the standard streams go."""

    stdin: str = string(1)
    stdout: str = string(2)
    stderr: str = string(3)
    terminal: bool = boolean(4)


class TaskCreate(Message):
    """A container was made."""

    container_id: str = string(1)
    bundle: str = string(2)
    rootfs: list[Mount] = repeated(nested(Mount, 3))
    io: TaskIO | None = nested(TaskIO, 4)
    checkpoint: str = string(5)
    pid: int = uint32(6)


class TaskStart(Message):
    """Its first process runs."""

    container_id: str = string(1)
    pid: int = uint32(2)


class TaskDelete(Message):
    """It is gone; ``id`` names an added process, if that is what is gone."""

    container_id: str = string(1)
    pid: int = uint32(2)
    exit_status: int = uint32(3)
    exited_at: Timestamp | None = nested(Timestamp, 4)
    id: str = string(5)


class TaskExit(Message):
    """A process ended; ``id`` is the container's, or the one of an added process."""

    container_id: str = string(1)
    id: str = string(2)
    pid: int = uint32(3)
    exit_status: int = uint32(4)
    exited_at: Timestamp | None = nested(Timestamp, 5)


class TaskOOM(Message):
    """A process of it was killed for want of memory."""

    container_id: str = string(1)


class TaskExecAdded(Message):
    """A process was taken note of."""

    container_id: str = string(1)
    exec_id: str = string(2)


class TaskExecStarted(Message):
    """It runs."""

    container_id: str = string(1)
    exec_id: str = string(2)
    pid: int = uint32(3)


class TaskPaused(Message):
    """Every process of the container stands still."""

    container_id: str = string(1)


class TaskResumed(Message):
    """They go on."""

    container_id: str = string(1)


class Envelope(Message):
    """An event with its moment, namespace and topic."""

    timestamp: Timestamp | None = nested(Timestamp, 1)
    namespace: str = string(2)
    topic: str = string(3)
    event: AnyMessage | None = nested(AnyMessage, 4)


class ForwardRequest(Message):
    """The request of ``Forward``."""

    envelope: Envelope | None = nested(Envelope, 1)


TOPICS: dict[type[Message], str] = {
    TaskCreate: "/tasks/create",
    TaskStart: "/tasks/start",
    TaskExit: "/tasks/exit",
    TaskDelete: "/tasks/delete",
    TaskOOM: "/tasks/oom",
    TaskExecAdded: "/tasks/exec-added",
    TaskExecStarted: "/tasks/exec-started",
    TaskPaused: "/tasks/paused",
    TaskResumed: "/tasks/resumed",
}
