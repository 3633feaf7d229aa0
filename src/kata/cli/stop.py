"""``kata stop``: every named container is asked at once, then waited for."""

from __future__ import annotations

from kata.cli.context import for_each, open_store
from kata.cli.numbers import seconds
from kata.runtime.control import ControlClient, connect
from kata.runtime.control_api import StopRequest
from kata.runtime.store import STOPPED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kata.cli.parse import Options


def run(options: Options) -> int:
    """Stop containers; one that has ended already is no error."""
    timeout = None if options.time is None else seconds(options.time, "--time")
    store = open_store(options)
    asked: dict[str, tuple[ControlClient, int]] = {}

    def ask(name: str) -> None:
        state = store.find(name)
        if state.status != STOPPED:
            client = connect(store.owner(state), name)
            wait = state.stop_timeout if timeout is None else timeout
            request = StopRequest(
                timeout=wait, signal=state.stop_signal, container_id=state.id
            )
            asked[name] = (client, client.send("Stop", request))
        else:
            print(name)

    def collect(name: str) -> None:
        client, number = asked[name]
        try:
            client.result(number)
        finally:
            client.close()
        print(name)

    code = for_each(options.containers, options, ask)
    return for_each(list(asked), options, collect) or code
