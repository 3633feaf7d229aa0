"""The messages of the control API that engines' commands and stand-ins need; see ``control_api``.

They stand apart as those of ``wire.calls`` do: the tables of both APIs cost 5 ms. The rule: few.
"""

from __future__ import annotations

from kata.wire.protobuf import Message, boolean, bytes_, int32, int64, repeated, string, uint32


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
