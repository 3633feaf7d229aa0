"""What a shim leaves that is killed before containerd has asked it for anything.

containerd then forgets it, removes the bundle and never calls ``delete``. So the shims that end
later, and each ``delete``, see to it: nobody else will ask for a container that never came to be
and whose bundle is gone.
"""

from __future__ import annotations

import os
import time

from kata.runtime.cleanup import remove
from kata.runtime.store import CREATING, parse_state
from kata.shim import address as addresses

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kata.runtime.store import ContainerState, Store


_LOOKS, _LOOK_S = 25, 0.02


def sweep(store: Store) -> None:
    """Remove containers that were being made by a shim that is gone, as is their bundle."""
    for container_id in store.ids():
        state = _abandoned(store, container_id)
        if state is None:
            continue
        remove(store, state, force=True)
        for path in state.traces:  # until it is made, those are where its shim listened
            if _is_free(path):
                addresses.forget(path)


def _is_free(path: str) -> bool:
    """Whether nobody listens there: one that is just dying gives up its lock before its socket."""
    for _ in range(_LOOKS):
        if not addresses.serves(path):
            return True
        time.sleep(_LOOK_S)
    return False


def _abandoned(store: Store, container_id: str) -> ContainerState | None:
    """The state of such a container; None for all others.

    The file is read before the lock is tried: it is written by who holds the lock.
    """
    try:
        with open(f"{store.directory(container_id)}/state.json", "rb") as file:
            state = parse_state(file.read())
    except (OSError, ValueError, TypeError):
        return None
    if state.status != CREATING or not state.bundle or os.path.lexists(state.bundle):
        return None
    return None if store.alive(state.sandbox or container_id) else state
