"""``kata-runtime start``: let the process of a made container run."""

from __future__ import annotations

from kata.cli.runtime.containers import connect, find
from kata.errors import KataError, WrongState
from kata.runtime.store import CREATED, PAUSED, STOPPED
from kata.wire.calls import ContainerRequest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kata.cli.parse import Options
    from kata.runtime.store import ContainerState, Store


def run(options: Options) -> int:
    """Start it."""
    store, state = find(options)
    start(store, state)
    return 0


def start(store: Store, state: ContainerState) -> None:
    """Start a container and run its poststart hooks. Raises ``WrongState`` in runc's words."""
    if state.status == STOPPED:
        raise WrongState("cannot start a container that has stopped")
    if state.status == PAUSED:
        raise WrongState("cannot start a container in the paused state")
    if state.status != CREATED:
        raise WrongState("cannot start an already running container")
    client = connect(store, state)
    client.tell("Start", ContainerRequest(container_id=state.id))
    client.close()
    if state.hooks:
        from kata.cli.runtime.delete import delete
        from kata.cli.runtime.hooks import run_named

        try:
            run_named("poststart", store, state)
        except KataError:
            delete(store, store.named(state.name) or state, force=True)
            raise
