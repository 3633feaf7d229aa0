"""``kata-runtime kill``: send a signal to a container's first process, or to all of them."""

from __future__ import annotations

from kata.cli.runtime.containers import connect, find
from kata.errors import NotFound, WrongState
from kata.oci.signals import number
from kata.runtime.store import STOPPED
from kata.wire.calls import SignalRequest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kata.cli.parse import Options


def run(options: Options) -> int:
    """Send it."""
    signal = number(options.words[1] if len(options.words) > 1 else "TERM")
    store, state = find(options)
    if state.status == STOPPED:
        if options.all:
            return 0
        raise WrongState("container not running")
    try:
        client = connect(store, state)
        request = SignalRequest(container_id=state.id, signal=signal, all=options.all)
        client.tell("Signal", request)
        client.close()
    except (WrongState, NotFound):
        if options.all:
            return 0
        raise WrongState("container not running") from None
    return 0
