"""What a supervisor is born with when containerd drives it, and its place on disk."""

from __future__ import annotations

from kata.errors import AlreadyExists
from kata.wire.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket
    from collections.abc import Callable

    from kata.runtime.store import ContainerState, Store
    from kata.runtime.supervisor import Supervisor
    from kata.shim.empty import Arrived
    from kata.shim.order import Order


@record
class Seat:
    """What a supervisor is given of its shim: who started it, and where it listens."""

    order: Order
    bundle: str
    listener: socket
    path: str
    ttrpc: str  # containerd's socket for events; empty: nobody wants them
    kind: str  # of ``oci.pods``; empty: a sandbox without a container
    network: int
    host_network: int
    config_path: str = ""
    hostname: str = ""


def reserve(store: Store, state: ContainerState) -> int:
    """Take the name of a container, from a dead sandbox too. Raises ``AlreadyExists``."""
    try:
        return store.create(state)
    except AlreadyExists:
        from kata.runtime.cleanup import remove

        store.sweep(state.name)
        left = store.named(state.name)
        if left is not None:
            if store.alive(left.sandbox or left.id):
                raise
            remove(store, left, force=True)
        return store.create(state)


def supervisor_of(
    seat: Seat, arrived: Arrived | None = None
) -> Callable[[], Callable[..., Supervisor]]:
    """What the child becomes, loaded once there is time for it; see ``ShimSupervisor``."""

    def become() -> Callable[..., Supervisor]:
        from kata.shim.supervisor import ShimSupervisor

        return lambda *made: ShimSupervisor((seat, arrived), *made)

    return become
