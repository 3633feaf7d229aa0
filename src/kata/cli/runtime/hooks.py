"""The hooks of a container, kept from its creation to its end, and run with its state."""

from __future__ import annotations

from kata.cli.runtime.containers import status
from kata.oci.state import STOPPED, State, document
from kata.runtime.hooks import run_all
from kata.wire.quickjson import dumps, loads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from kata.runtime.store import ContainerState, Store


def keep(store: Store, state: ContainerState, hooks: dict[str, Any]) -> None:
    """Keep the hooks beside the container's state."""
    from kata.runtime.store import HOOKS, write_atomic

    write_atomic(f"{store.directory(state.id)}/{HOOKS}", dumps(hooks).encode())


def of_container(store: Store, state: ContainerState) -> dict[str, Any]:
    """The hooks that were kept; none if they cannot be read."""
    from kata.runtime.store import HOOKS

    try:
        with open(f"{store.directory(state.id)}/{HOOKS}", "rb") as file:
            found: dict[str, Any] = loads(file.read())
            return found
    except (OSError, ValueError):
        return {}


def state_document(state: ContainerState, **changes: object) -> bytes:
    """What a hook reads."""
    about: dict[str, Any] = {
        "id": state.name, "status": status(state), "bundle": state.bundle, "pid": state.pid,
        "annotations": state.annotations, **changes,
    }  # fmt: skip
    return dumps(document(State(**about))).encode()


def run_named(kind: str, store: Store, state: ContainerState) -> None:
    """Run the kept hooks of a kind after a start; raises ``HostError``."""
    fresh = store.named(state.name) or state
    run_all(kind, of_container(store, state).get(kind) or (), state_document(fresh))


def run_hooks(kind: str, hooks: dict[str, Any], state: ContainerState) -> None:
    """Run hooks after the end of a container: what fails is a warning, as runc has it."""
    from sys import stderr

    from kata.errors import HostError

    for hook in hooks.get(kind) or ():
        try:
            run_all(kind, (hook,), state_document(state, status=STOPPED, pid=0))
        except HostError as error:
            print(f"kata-runtime: {error}", file=stderr)
