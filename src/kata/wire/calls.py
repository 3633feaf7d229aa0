"""The messages that the agent's API and the supervisor's have in common.

They stand apart because they are all that the quick verbs of ``kata-runtime`` need: making the
classes of a whole API costs a command a millisecond. The rule: few, small, and of both.
"""

from __future__ import annotations

from kata.wire.protobuf import Message, boolean, string, uint32


class Empty(Message):
    """Nothing."""


class ContainerRequest(Message):
    """Names a container."""

    container_id: str = string(1)


class ProcessRequest(Message):
    """Names a process."""

    container_id: str = string(1)
    exec_id: str = string(2)


class ResizeRequest(Message):
    """The size of a process's terminal, in characters."""

    container_id: str = string(1)
    exec_id: str = string(2)
    rows: int = uint32(3)
    columns: int = uint32(4)


class SignalRequest(Message):
    """Send a signal to a process, or with ``all`` to every process of the container."""

    container_id: str = string(1)
    exec_id: str = string(2)
    signal: int = uint32(3)
    all: bool = boolean(4)


class DeleteRequest(Message):
    """Remove a stopped container and what was mounted for it; ``force`` kills it first."""

    container_id: str = string(1)
    force: bool = boolean(2)
