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
from kata.shim.rootfs import unmount_all
from kata.shim.start import CONFIG_NOTE, store_name
from kata.wire.containerd_task import DeleteResponse
from kata.wire.containerd_types import timestamp

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kata.runtime.store import ContainerState
    from kata.shim.main import Order


def delete(order: Order) -> bytes:
    """Remove it; gives ``DeleteResponse`` as protobuf. Raises what could not be removed."""
    bundle = os.path.abspath(order.bundle or ".")
    store = Store(load(_noted(bundle)).runtime.state_root)
    state = store.named(store_name(order))
    code, ended = LOST_EXIT_CODE, 0
    if state is not None:
        if state.finished_ns:
            code, ended = state.exit_code, state.finished_ns
        _remove(store, state)
    else:
        store.sweep(store_name(order))
    unmount_all(f"{bundle}/rootfs")
    path = addresses.socket_path(order.address, order.namespace, order.id)
    if os.path.lexists(path) and not addresses.serves(path):
        os.unlink(path)
    ended_at = timestamp(ended or time.time_ns())
    return DeleteResponse(exit_status=code, exited_at=ended_at).encode()


def _noted(bundle: str) -> str | None:
    """The configuration file that ``start`` was given."""
    try:
        with open(f"{bundle}/{CONFIG_NOTE}", encoding="utf-8") as file:
            return file.read() or None
    except OSError:
        return None


def _remove(store: Store, state: ContainerState) -> None:
    from kata.runtime.cleanup import remove, remove_groups

    if not state.sandbox:
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
