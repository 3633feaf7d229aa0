"""``kata-runtime state``: what a container is doing, as JSON."""

from __future__ import annotations

from kata.oci.state import State, command_line_document

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from kata.cli.parse import Options
    from kata.runtime.store import ContainerState


def run(options: Options) -> int:
    """Print it."""
    from kata.cli.runtime.containers import find
    from kata.wire.quickjson import dumps

    _, state = find(options)
    print(dumps(document(state), indent=2))
    return 0


def document(state: ContainerState) -> dict[str, Any]:
    """The state as runc prints it."""
    return command_line_document(
        State(
            id=state.name, status=state.status, bundle=state.bundle, pid=state.pid,
            annotations=state.annotations,
        ),
        rootfs=state.rootfs, created=rfc3339(state.created_ns), owner="root",
    )  # fmt: skip


def rfc3339(nanoseconds: int) -> str:
    """A time as Go prints it: to the nanosecond, in UTC."""
    from time import gmtime, strftime

    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    fraction = f".{rest:09d}".rstrip("0").rstrip(".")
    return f"{strftime('%Y-%m-%dT%H:%M:%S', gmtime(seconds))}{fraction}Z"
