"""``delete``: what is left of a container whose shim is gone is removed, however it went.

containerd calls it after every shim, so that nothing at all being left is the usual case.
"""

from __future__ import annotations

import os
import time

from kata.config.load import load
from kata.errors import KataError
from kata.runtime.store import LOST_EXIT_CODE, Store
from kata.shim import address as addresses
from kata.shim.bundle import noted_config, store_name
from kata.shim.rootfs import unmount_all
from kata.wire.containerd_task import DeleteResponse
from kata.wire.containerd_types import timestamp

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kata.runtime.store import ContainerState
    from kata.shim.order import Order

_LAST_MOMENTS_S = 3.0  # of a shim that was told to end, and does


def delete(order: Order) -> bytes:
    """Remove it; gives ``DeleteResponse`` as protobuf. Raises what could not be removed."""
    bundle = os.path.abspath(order.bundle or ".")
    store = Store(load(noted_config(bundle)).runtime.state_root)
    state = store.named(store_name(order))
    path = addresses.socket_path(order.address, order.namespace, order.id)
    code, ended = LOST_EXIT_CODE, 0
    if state is not None:
        if state.finished_ns:
            code, ended = state.exit_code, state.finished_ns
        _remove(store, state, served=addresses.serves(path))
    else:
        _sweep_name(store, store_name(order))
    unmount_all(f"{bundle}/rootfs")
    if os.path.lexists(path) and not addresses.serves(path):
        addresses.forget(path)
    _sweep(store)
    ended_at = timestamp(ended or time.time_ns())
    return DeleteResponse(exit_status=code, exited_at=ended_at).encode()


def _sweep_name(store: Store, name: str) -> None:
    """Free the name of what was never written down; a shim may be removing its own just now."""
    end = time.monotonic() + _LAST_MOMENTS_S
    while not store.sweep(name) and store.has(name) and time.monotonic() < end:
        time.sleep(0.005)


def _sweep(store: Store) -> None:
    """Remove what others left, too."""
    if not store.ids():
        return
    from kata.shim.leftovers import sweep

    sweep(store)


def _remove(store: Store, state: ContainerState, *, served: bool) -> None:
    from kata.runtime.cleanup import kill, remove, remove_groups

    if not state.sandbox:
        if store.alive(state.id):
            kill(store, state, grace=0.0 if served else _LAST_MOMENTS_S)
        remove(store, state, force=True)
        return
    if store.alive(state.sandbox):
        _ask(store, state)
    store.forget(state)
    remove_groups(state)


def _ask(store: Store, state: ContainerState) -> None:
    """Let the supervisor of the pod end it and forget it."""
    from kata.runtime.control import connect
    from kata.wire.calls import DeleteRequest

    try:
        client = connect(store.owner(state), state.name)
        client.tell("Delete", DeleteRequest(container_id=state.id, force=True))
        client.close()
    except KataError:
        pass  # it ended meanwhile; what it kept is removed next
