"""Removing containers, whatever state a crash or a power cut left them in."""

from __future__ import annotations

import os
import time

from kata.errors import KataError, NotFound, WrongState
from kata.runtime.store import STOPPED, ContainerState, Damaged
from kata.wire.record import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from kata.runtime.store import Store

_PATIENCE_S = 10.0
_KILL = 9
_ID_LENGTH = 64


def remove(store: Store, state: ContainerState, *, force: bool = False) -> None:
    """Remove a container; with ``force`` end it first, by whatever it takes.

    Raises ``WrongState`` if it runs and ``force`` was not given.
    """
    if store.alive(state.id):
        if state.status != STOPPED and not force:
            raise WrongState(
                f'container "{state.name}" is {state.status}',
                hint=f"stop it first, or kata rm -f {state.name}",
            )
        if _is_stopped(state.pid):
            kill(store, state)  # it would be asked in vain
        else:
            _end(store, state)
    store.forget(state)
    remove_groups(state)
    _free_uids(store)


def _is_stopped(pid: int) -> bool:
    """Whether a process was stopped by a signal (proc_pid_stat(5))."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b") ")[2][:1] == b"T"
    except OSError:
        return False


def _end(store: Store, state: ContainerState) -> None:
    """Ask the supervisor to end; if it does not, kill it: its VMM dies with it."""
    import select

    from kata.runtime.control import connect
    from kata.runtime.control_api import StopRequest

    try:
        client = connect(store.directory(state.id), state.name)
        number = client.send("Stop", StopRequest(timeout=0))
        poll = select.poll()
        poll.register(client.fileno(), select.POLLIN)
        while not client.answered(number) and not client.closed:
            if not poll.poll(_PATIENCE_S * 1000):
                break
            client.pump()
        client.close()
    except KataError:
        pass  # not listening yet, or not any more
    if not _gone_within(store, state, 1.0 if state.status == STOPPED else 3.0):
        kill(store, state)


def discard(store: Store, container_id: str) -> None:
    """Remove a container whose state cannot be read; one that runs is killed. As ``kill``."""
    unknown = ContainerState(id=container_id, name=container_id[:12])
    if store.alive(container_id):
        kill(store, unknown)
    store.discard(container_id)
    remove_groups(unknown)
    _free_uids(store)


def kill(store: Store, state: ContainerState, *, grace: float = 0.0) -> None:
    """Kill the supervisor, unless it ends within ``grace`` seconds: its VMM dies with it.

    Raises ``WrongState`` if it does not end.
    """
    if grace and _gone_within(store, state, grace):
        return
    deadline = time.monotonic() + _PATIENCE_S
    _kill_supervisor(store, state)
    while not _gone_within(store, state, 0.5):
        _kill_supervisor(store, state)  # one that was just being forked
        if time.monotonic() < deadline:
            continue
        raise WrongState(
            f'the supervisor of container "{state.name}" does not end',
            why="held by process " + " ".join(map(str, _holders(_lock_of(store, state)))),
        )


def _gone_within(store: Store, state: ContainerState, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while store.alive(state.id):
        if time.monotonic() > end:
            return False
        time.sleep(0.005)
    return True


def _kill_supervisor(store: Store, state: ContainerState) -> None:
    """Kill whichever process holds the lock, by a pidfd checked after it was opened."""
    path = _lock_of(store, state)
    for pid in _holders(path):
        try:
            pidfd = os.pidfd_open(pid)
        except OSError:
            continue
        try:
            if pid in _holders(path):
                from _signal import pidfd_send_signal

                pidfd_send_signal(pidfd, _KILL)
        except OSError:
            pass
        finally:
            os.close(pidfd)


def _lock_of(store: Store, state: ContainerState) -> str:
    return f"{store.directory(state.id)}/lock"


def _holders(path: str) -> list[int]:
    """The processes that have a file open."""
    try:
        wanted = os.stat(path)
    except OSError:
        return []
    found = []
    for name in os.listdir("/proc"):
        if not name.isdigit() or int(name) == os.getpid():
            continue
        try:
            for fd in os.listdir(f"/proc/{name}/fd"):
                info = os.stat(f"/proc/{name}/fd/{fd}")
                if info.st_ino == wanted.st_ino and info.st_dev == wanted.st_dev:
                    found.append(int(name))
                    break
        except OSError:
            continue
    return found


def remove_groups(state: ContainerState) -> None:
    """Remove the control groups of a container that has ended."""
    from kata.resources.group import existing

    if state.cgroup:
        parent, _, name = state.cgroup.rpartition("/")
        existing(name, parent=parent).remove()
    else:
        existing(state.id).remove()


def collect(store: Store, tell: Callable[[KataError], None]) -> list[str]:
    """Remove all that belongs to no living supervisor and to no stopped container that is kept.

    Gives a line for each thing removed; ``tell`` hears of what cannot be read, which stays.
    """
    removed = []
    for container_id in store.ids():
        if store.alive(container_id):
            continue
        try:
            state = store.load(container_id)
        except Damaged as error:
            tell(error)
            continue
        except NotFound:
            if store.sweep_nameless(container_id):
                removed.append(f"container {container_id[:12]} (no state)")
            continue
        if state.auto_remove or not state.started_ns:
            store.forget(state)
            removed.append(f"container {state.name}")
        elif not state.finished_ns:
            store.save(replace(state, finished_ns=time.time_ns()))
    return removed + _dangling_names(store) + _orphaned_groups(store) + _free_uids(store)


def _orphaned_groups(store: Store) -> list[str]:
    """Control groups of sandboxes that are gone; those of other state roots may be alive.

    What somebody has entered meanwhile stays: nothing is killed for being where it is.
    """
    from kata.linux import cgroups
    from kata.resources.group import existing, names

    removed = []
    for name in names() - set(store.ids()):
        if not _is_id(name):
            continue  # an engine gave it, and has it removed
        group = existing(name)
        if not group.populated() and not cgroups.remove(group.paths, wait_s=0):
            removed.append(f"control group {name[:12]}")
    return removed


def _is_id(name: str) -> bool:
    return len(name) == _ID_LENGTH and set(name) <= set("0123456789abcdef")


def _free_uids(store: Store) -> list[str]:
    """Lock files of user ids whose owner was killed."""
    import fcntl

    directory = f"{store.root}/uids"
    removed = []
    for name in os.listdir(directory) if os.path.isdir(directory) else ():
        try:
            with open(f"{directory}/{name}", "rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.unlink(f"{directory}/{name}")
        except OSError:
            continue  # somebody has it, or it is none
        removed.append(f"user id lock {name}")
    return removed


def _dangling_names(store: Store) -> list[str]:
    directory = f"{store.root}/names"
    removed = []
    for name in os.listdir(directory) if os.path.isdir(directory) else ():
        link = f"{directory}/{name}"
        if not os.path.islink(link):
            continue  # nothing of ours
        if not os.path.lexists(store.directory(os.readlink(link))):
            os.unlink(link)
            removed.append(f"name {name}")
    return removed
