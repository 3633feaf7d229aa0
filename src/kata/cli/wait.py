"""``kata wait``: the exit code of each named container, once it has ended."""

from __future__ import annotations

from kata.cli.context import for_each, open_store
from kata.errors import WrongState
from kata.runtime.control import connect
from kata.runtime.control_api import ExitResponse
from kata.runtime.store import STOPPED
from kata.wire.agent_api import ProcessRequest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kata.cli.parse import Options
    from kata.runtime.store import ContainerState, Store


def run(options: Options) -> int:
    """Wait for containers, in the order in which they were named."""
    store = open_store(options)
    return for_each(options.containers, options, lambda name: print(exit_code(store, name)))


def exit_code(store: Store, name: str) -> int:
    """The exit code of a container, waited for if it still runs."""
    state = store.find(name)
    if state.status == STOPPED:
        return state.exit_code
    try:
        return _wait(store, state)
    except WrongState:
        state = store.load(state.id)  # it ended, or its supervisor did, while we were asking
        if state.status != STOPPED:
            raise
        return state.exit_code


def _wait(store: Store, state: ContainerState) -> int:
    client = connect(store.owner(state), state.name)
    try:
        answer = client.call("Wait", ProcessRequest(container_id=state.id))
    finally:
        client.close()
    assert isinstance(answer, ExitResponse)
    return answer.exit_code
