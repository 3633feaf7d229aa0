"""What most verbs begin with: the store of an engine, and the container that was named."""

from __future__ import annotations

from kata.errors import InvalidInput, NotFound
from kata.runtime.store import CREATING, Store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kata.cli.parse import Options
    from kata.runtime.control import ControlClient
    from kata.runtime.store import ContainerState

_ALLOWED = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_+-.")
_LONGEST = 200  # a name of a file, with room for what is appended


def check_id(container_id: str) -> str:
    """The id if it is one that runc takes. Raises ``InvalidInput``."""
    if not container_id:
        raise InvalidInput("container id cannot be empty")
    if set(container_id) - _ALLOWED or container_id in (".", "..") or len(container_id) > _LONGEST:
        raise InvalidInput(
            f'invalid container ID format: "{container_id}"',
            why=f"letters, digits and _+-. are allowed, {_LONGEST} at most",
        )
    return container_id


def open_store(options: Options) -> Store:
    """The containers below ``--root``."""
    if options.root:
        return Store(options.root)
    from kata.config.load import load

    return Store(load(options.config).runtime.state_root)


def find(options: Options) -> tuple[Store, ContainerState]:
    """The container that the first word names. Raises ``NotFound`` in runc's words."""
    store = open_store(options)
    container_id = check_id(options.words[0])
    state = store.named(container_id)
    if state is None:
        raise NotFound("container does not exist", why=f'"{container_id}"')
    return store, state


def connect(store: Store, state: ContainerState) -> ControlClient:
    """The supervisor of a container. Raises ``WrongState``."""
    from kata.runtime.control import connect as dial

    return dial(store.owner(state), state.name)


def status(state: ContainerState) -> str:
    """The status in the specification's words."""
    return state.status if state.status != CREATING else "creating"
