"""OCI's state of a container, as ``state`` prints it and hooks read it.

Source: https://github.com/opencontainers/runtime-spec/blob/v1.2.0/runtime.md#state
"""

from __future__ import annotations

from kata.oci.version import VERSION
from kata.wire.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

CREATING, CREATED, RUNNING, STOPPED = "creating", "created", "running", "stopped"
PAUSED = "paused"  # runc's addition
STATUSES = (CREATING, CREATED, RUNNING, PAUSED, STOPPED)


@record
class State:
    """What a container is doing; ``pid`` is a process of the host, 0 when it has stopped."""

    id: str
    status: str
    bundle: str
    pid: int = 0
    annotations: tuple[tuple[str, str], ...] = ()


def document(state: State) -> dict[str, Any]:
    """The state as the specification writes it; the pid of a stopped container is left out."""
    out: dict[str, Any] = {"ociVersion": VERSION, "id": state.id, "status": state.status}
    if state.status != STOPPED and state.pid:
        out["pid"] = state.pid
    out["bundle"] = state.bundle
    if state.annotations:
        out["annotations"] = dict(state.annotations)
    return out


def command_line_document(
    state: State, *, rootfs: str, created: str, owner: str = ""
) -> dict[str, Any]:
    """The state as runc's ``state`` command prints it; ``created`` is RFC 3339 text."""
    return {
        "ociVersion": VERSION,
        "id": state.id,
        "pid": 0 if state.status == STOPPED else state.pid,
        "status": state.status,
        "bundle": state.bundle,
        "rootfs": rootfs,
        "created": created,
        **({"annotations": dict(state.annotations)} if state.annotations else {}),
        "owner": owner,
    }
