"""What a network namespace holds, read by a socket that was opened in it.

The one rule: nothing is changed, and nothing decided; that is ``plan``'s.
"""

from __future__ import annotations

from kata.network.plan import Observed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection

    from kata.linux.netlink_socket import Rtnetlink


def observe(sock: Rtnetlink, taps: Collection[int] = ()) -> Observed:
    """The namespace as it is; ``taps`` are links of our own, left out. Raises ``OSError``."""
    return Observed(
        links=tuple(link for link in sock.links() if link.index not in taps),
        addresses=tuple(sock.addresses()),
        routes=tuple(sock.routes()),
        neighbours=tuple(sock.neighbours()),
    )
