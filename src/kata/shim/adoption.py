"""What a ready sandbox becomes for containerd: a shim, as ``start`` or ``empty`` have them."""

from __future__ import annotations

import os
from _socket import socket

from kata.oci.honoured import drop_unknown_capabilities
from kata.runtime.ready import Role
from kata.runtime.store import Store
from kata.shim.bundle import LOG
from kata.shim.containers import read_spec
from kata.shim.empty import HolderWorkload, arrived, sysctls_of
from kata.shim.handing import KIND, SANDBOX
from kata.shim.order import Order
from kata.shim.seat import Seat, supervisor_of
from kata.shim.workload import ShimWorkload

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from kata.config.settings import Config
    from kata.runtime.store import ContainerState
    from kata.runtime.workload import Workload
    from kata.shim.empty import Arrived

__all__ = ["KIND", "SANDBOX", "adopt", "adopt_sandbox"]


def adopt(order: dict[str, Any], fds: list[int], config: Config) -> Role:
    """As ``handing`` has it."""
    seat, store, state = _place(order, fds)
    spec = read_spec(seat.bundle)
    drop_unknown_capabilities(spec["process"])
    first = ShimWorkload(seat.order.id, state, spec, config.runtime.data_root, seat.network)
    first.deferred = True
    return _role(seat, store, state, first)


def adopt_sandbox(order: dict[str, Any], fds: list[int], config: Config) -> Role:
    """As ``handing.describe_sandbox`` has it."""
    *given, connection = fds
    seat, store, state = _place(order, given)
    asked = arrived(socket(fileno=connection), order["raw"].encode("latin-1"))
    first = HolderWorkload(seat, state, config.runtime.data_root, sysctls_of(asked.request))
    return _role(seat, store, state, first, asked)


def _place(order: dict[str, Any], fds: list[int]) -> tuple[Seat, Store, ContainerState]:
    """Where the shim sits, and what is on disk of it."""
    listener, network, host_network, _lock = fds  # the lock is held by being open
    os.environ.clear()
    os.environ.update(order["environment"])
    seat = Seat(
        order=Order(**order["order"]), listener=socket(fileno=listener), network=network,
        host_network=host_network, **order["seat"],
    )  # fmt: skip
    store = Store(order["store"])
    return seat, store, store.load(order["id"])


def _role(
    seat: Seat, store: Store, state: ContainerState, first: Workload, asked: Arrived | None = None
) -> Role:
    log = f"{seat.bundle}/{LOG}"
    return Role(
        first, store, state, supervisor_of(seat, asked)(),
        log=log if os.path.lexists(log) else f"{store.directory(state.id)}/supervisor.log",
    )  # fmt: skip
