"""``kata-runtime pause`` and ``resume``: freeze every process of a container, and let go."""

from __future__ import annotations

from kata.cli.runtime.containers import connect, find
from kata.errors import WrongState
from kata.runtime.store import CREATED, PAUSED, RUNNING
from kata.wire.agent_api import ContainerRequest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kata.cli.parse import Options


def run(options: Options) -> int:
    """Do what the verb says."""
    store, state = find(options)
    if options.verb == "pause":
        if state.status not in (RUNNING, CREATED):
            raise WrongState("container not running", why=f"it is {state.status}")
    elif state.status != PAUSED:
        raise WrongState("container not paused")
    client = connect(store, state)
    method = "Pause" if options.verb == "pause" else "Resume"
    client.call(method, ContainerRequest(container_id=state.id))
    return 0
