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
    """The supervisor that a member of the pool is to become. Raises ``OSError`` if it has ended."""

    def __init__(self, member: Member) -> None:
        self._member = member
        self._pidfd = os.pidfd_open(member.pid)

    def hand(
        self, store: Store, state: ContainerState, request: RunRequest, held: list[int],
        streams: Mapping[int, int],
    ) -> bool:  # fmt: skip
        """Have it be a container's; whether it is. If it is not, it is ended.

        ``held``: its end of the control connection, and the container's lock. What is given stays
        ours too.
        """
        order = {
            "kind": run_order.KIND, "store": store.root, "id": state.id, "streams": list(streams),
            "title": ["kata", "run", state.name], "request": run_order.describe(request),
        }  # fmt: skip
        if self._member.hand(order, [*held, *streams.values()]):
            return True
        self.kill()  # what it was given may still be on its way, and hold our streams open
        return False

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

