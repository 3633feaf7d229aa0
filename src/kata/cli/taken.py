"""``kata run`` with a ready sandbox of the pool: giving the container to it, waiting for its end.

The rule: it is no child of ours. Who waits for it or ends it does that by its pidfd.
"""

from __future__ import annotations

import _signal
import os
import select

from kata.runtime import run_order

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from kata.runtime.pool import Member
    from kata.runtime.request import RunRequest
    from kata.runtime.store import ContainerState, Store

_KILL = 9


class Taken:
    """The supervisor that a member of the pool has become."""

    def __init__(self, pidfd: int) -> None:
        self._pidfd = pidfd

    def wait(self) -> str:
        """Wait for its end; what there is to say of that."""
        poll = select.poll()
        poll.register(self._pidfd, select.POLLIN)
        poll.poll()
        return "its process has ended"

    def kill(self) -> None:
        """End it at once."""
        try:
            _signal.pidfd_send_signal(self._pidfd, _KILL)
        except ProcessLookupError:
            pass  # it has ended
        self.wait()


def hand(
    member: Member, store: Store, state: ContainerState, order: tuple[RunRequest, list[int]],
    streams: Mapping[int, int],
) -> Taken | None:  # fmt: skip
    """Have a ready sandbox be a container's; None if it has ended meanwhile.

    ``order``: the request; its end of the control connection, and the container's lock. What is
    given stays ours too.
    """
    request, held = order
    try:
        pidfd = os.pidfd_open(member.pid)
    except OSError:
        return None
    words = {
        "kind": run_order.KIND, "store": store.root, "id": state.id, "streams": list(streams),
        "title": ["kata", "run", state.name], "request": run_order.describe(request),
    }  # fmt: skip
    if member.hand(words, [*held, *streams.values()]):
        return Taken(pidfd)
    os.close(pidfd)
    return None
