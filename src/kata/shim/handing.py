"""What is told a ready sandbox of the pool that is to be a shim, and what goes with that.

``adoption`` is the other side, in the member.
"""

from __future__ import annotations

import os

from kata.wire.record import fields

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from kata.runtime.store import ContainerState, Store
    from kata.shim.seat import Seat

KIND, SANDBOX = "shim", "sandbox"
_NAMED = ("bundle", "path", "ttrpc", "kind", "config_path", "hostname")


def describe(seat: Seat, store: Store, state: ContainerState) -> dict[str, Any]:
    """The order to be the shim of a seat; its descriptors are ``descriptors``'."""
    return {
        "kind": KIND, "store": store.root, "id": state.id, "order": fields(seat.order),
        "environment": dict(os.environ), "seat": {name: fields(seat)[name] for name in _NAMED},
    }  # fmt: skip


def descriptors(seat: Seat, lock: int) -> list[int]:
    """What goes with the order."""
    return [seat.listener.fileno(), seat.network, seat.host_network, lock]


def describe_sandbox(
    seat: Seat, store: Store, state: ContainerState, raw: bytes
) -> dict[str, Any]:
    """The order to be the shim of a sandbox that CreateSandbox is to make.

    ``raw`` is that call, with all that has come behind it. Its connection goes with the others.
    """
    return {**describe(seat, store, state), "kind": SANDBOX, "raw": raw.decode("latin-1")}
