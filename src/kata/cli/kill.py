"""``kata kill``: a signal to the first process of each named container."""

from __future__ import annotations

from kata.cli.context import for_each, open_store
from kata.oci import signals
from kata.runtime.control import connect
from kata.wire.agent_api import SignalRequest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kata.cli.parse import Options


def run(options: Options) -> int:
    """Send a signal; raises ``InvalidInput`` if there is none of that name."""
    number = signals.number(options.signal or "KILL")
    store = open_store(options)

    def kill(name: str) -> None:
        state = store.find(name)
        client = connect(store.owner(state), name)
        try:
            client.call("Signal", SignalRequest(container_id=state.id, signal=number))
        finally:
            client.close()
        print(name)

    return for_each(options.containers, options, kill)
