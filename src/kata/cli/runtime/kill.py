"""``kata-runtime kill``: send a signal to a container's first process, or to all of them."""

from __future__ import annotations

from kata.cli.runtime.containers import connect, find
from kata.errors import InvalidInput, NotFound, WrongState
from kata.oci.signals import number
from kata.runtime.store import STOPPED
from kata.wire.calls import SignalRequest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kata.cli.parse import Options


def run(options: Options) -> int:
    """Send it."""
    store, state = find(options)
    signal = _signal(options.words[1] if len(options.words) > 1 else "TERM")
    if state.status == STOPPED:
        if options.all:
            return 0
        raise WrongState("container not running")
    if not signal:
        return 0  # it was only asked whether it is there
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


def _signal(text: str) -> int:
    """Its number; 0 asks whether the container runs. Raises ``InvalidInput`` in runc's words."""
    if text == "0":
        return 0
    try:
        return number(text or "TERM")
    except InvalidInput:
        raise InvalidInput(f'unknown signal "{text}"') from None
