"""``kata-runtime delete``: remove all that is left of a container, on the host and in the guest."""

from __future__ import annotations

from kata.cli.runtime.containers import check_id, connect, open_store
from kata.errors import KataError, NotFound, WrongState
from kata.runtime.store import CREATED, CREATING, STOPPED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kata.cli.parse import Options
    from kata.runtime.store import ContainerState, Store


def run(options: Options) -> int:
    """Delete it; with ``--force`` whatever it is doing, and a missing one is as wished."""
    store = open_store(options)
    container_id = check_id(options.words[0])
    state = store.named(container_id)
    if state is None:
        store.sweep(container_id)
        state = store.named(container_id)  # one that was being made at the first look
    if state is None:
        if options.force:
            return 0
        raise NotFound("container does not exist", why=f'"{container_id}"')
    if state.status not in (STOPPED, CREATED, CREATING) and not options.force:
        raise WrongState(
            f"cannot delete container {container_id} that is not stopped: {state.status}"
        )
    delete(store, state, force=options.force)
    return 0


def delete(store: Store, state: ContainerState, *, force: bool = False) -> None:
    """Remove a container, and run its poststop hooks."""
    hooks = None
    if state.hooks:
        from kata.cli.runtime.hooks import of_container

        hooks = of_container(store, state)
    if store.alive(state.sandbox or state.id):
        _ask(store, state, force=force)
    from kata.runtime.cleanup import remove, remove_groups

    if state.sandbox:
        store.forget(state)
        remove_groups(state)
        owner = store.hidden(state.sandbox)
        if owner is not None and not _members(store, owner):
            remove(store, owner, force=True)
    elif _is_outlived(store, state):
        store.hide(state)
    else:
        remove(store, state, force=True)
    if hooks:
        from kata.cli.runtime.hooks import run_hooks

        run_hooks("poststop", hooks, state)


def _is_outlived(store: Store, state: ContainerState) -> bool:
    """Whether the machine of a container goes on without it.

    A pod's first container ends it; but not one that was the first by chance.
    """
    if not state.annotations:
        return False
    from kata.oci.pods import membership

    dropped = membership(state.name, dict(state.annotations)).dropped
    return dropped and any(member.status != STOPPED for member in _members(store, state))


def _members(store: Store, owner: ContainerState) -> list[ContainerState]:
    return [state for state in store.list() if state.sandbox == owner.id]


def _ask(store: Store, state: ContainerState, *, force: bool) -> None:
    """Let the supervisor end and forget it; one that does not answer is ended below."""
    from kata.wire.calls import DeleteRequest

    try:
        client = connect(store, state)
        client.tell("Delete", DeleteRequest(container_id=state.id, force=force))
        client.close()
    except WrongState as error:
        if "that is not stopped" in error.what:
            raise
    except KataError:
        pass
