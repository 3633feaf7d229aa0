"""The state of containers on disk: one directory each, locked, atomically replaced, re-checked.

``<root>/<id>/`` holds ``state.json``, ``config.json``, ``log``, ``control.sock`` and ``lock``. The
supervisor holds a lock on the last for as long as it lives, so whether it is alive is asked of
the kernel, never guessed from a process id. ``<root>/names/<name>`` is a link to the id: making
it is what reserves a name.
"""

from __future__ import annotations

import fcntl
import os
from errno import EDQUOT, ENOSPC

from kata.errors import AlreadyExists, HostError, InvalidInput, NotFound, WrongState
from kata.wire import quickjson as json
from kata.wire.record import fields, record, replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

CREATING, CREATED, RUNNING, PAUSED, STOPPED = "creating", "created", "running", "paused", "stopped"
LOST_EXIT_CODE = 137  # the virtual machine was ended from outside, as by SIGKILL
POOL_SOCKET = "factory.sock"  # in the root, where ``kata factory serve`` runs
HOOKS = "hooks.json"  # of a container that has some
_FILES = (
    "state.json", "config.json", "log", "log.1", "control.sock", "supervisor.log", "lock", HOOKS,
)  # fmt: skip
_NAME_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-")


@record
class ContainerState:
    """What is known of a container; times are nanoseconds since the epoch, 0 if not yet."""

    id: str
    name: str
    image: str = ""
    command: tuple[str, ...] = ()
    status: str = CREATING
    pid: int = 0
    vmm_pid: int = 0
    created_ns: int = 0
    started_ns: int = 0
    finished_ns: int = 0
    exit_code: int = 0
    oom_killed: bool = False
    error: str = ""
    auto_remove: bool = False
    terminal: bool = False
    memory_mib: int = 0
    vcpus: int = 0
    template: str = ""
    accelerator: str = ""
    stop_signal: int = 15
    stop_timeout: int = 10
    labels: tuple[tuple[str, str], ...] = ()
    sandbox: str = ""  # the id of the container whose supervisor has it; empty: its own
    bundle: str = ""  # of a container that an engine made
    rootfs: str = ""
    annotations: tuple[tuple[str, str], ...] = ()
    cgroup: str = ""  # its path below every hierarchy
    systemd_slice: str = ""  # where systemd makes it
    hooks: bool = False  # whether HOOKS is beside the state
    traces: tuple[str, ...] = ()  # paths to be gone with it: its groups, the lock of its user id


class Damaged(NotFound):
    """A container whose state cannot be read, or is in no format that is known here."""

    def __init__(self, root: str, container_id: str, error: Exception) -> None:
        why = getattr(error, "strerror", None) or str(error)
        super().__init__(
            f'the state of container "{container_id[:12]}" cannot be read',
            why=f"{root}/{container_id}/state.json: {why}",
            hint=f"kata rm -f {container_id[:12]} removes it",
        )
        self.container_id = container_id


def check_name(name: str) -> str:
    """The name if it is allowed; raises ``InvalidInput`` (Docker's rule)."""
    good = len(name) > 1 and name[0].isalnum() and set(name) <= _NAME_CHARACTERS
    if not good or len(name) > 200:
        raise InvalidInput(
            f'invalid container name "{name}"',
            why="only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed, at least two of them",
        )
    return name


def new_id() -> str:
    """A fresh container id: 64 hexadecimal digits."""
    return os.urandom(32).hex()


class Store:
    """The containers under one state root; made on first use, readable by root alone."""

    def __init__(self, root: str) -> None:
        self.root = root

    def directory(self, container_id: str) -> str:
        """The directory of a container."""
        return f"{self.root}/{container_id}"

    def check_writable(self) -> None:
        """Raises ``HostError`` if ``create`` is bound to; asked before anything long is done."""
        path = self.root
        while not os.path.lexists(path):
            path = os.path.dirname(path) or "/"
        if not os.path.isdir(path):
            raise self.unwritable(f'"{path}" is not a directory')
        if not os.access(path, os.W_OK | os.X_OK):
            raise self.unwritable(f'"{path}" cannot be written')

    def unwritable(self, why: str) -> HostError:
        """The error for a root that nothing can be written to."""
        return HostError(
            f'cannot write to the state directory "{self.root}"', why=why,
            hint="run as root, free some space, or choose another with --root",
        )  # fmt: skip

    def create(self, state: ContainerState) -> int:
        """Reserve the name and make the directory; gives the descriptor that holds its lock.

        Raises ``AlreadyExists`` if the name is taken, ``HostError`` if the root is not writable.
        """
        taken = False
        try:
            os.makedirs(f"{self.root}/names", mode=0o700, exist_ok=True)
            with Naming(self.root):
                self._refuse_taken(state)
                taken = True
                os.mkdir(self.directory(state.id), 0o700)
                lock = _lock(self.directory(state.id))
                os.symlink(state.id, f"{self.root}/names/{state.name}")
                self.save(state)
        except OSError as error:
            if taken:
                self.forget(state)
            raise self.unwritable(error.strerror or str(error)) from None
        assert lock is not None
        return lock

    def _refuse_taken(self, state: ContainerState) -> None:
        link = f"{self.root}/names/{state.name}"
        holder = _readlink(link)
        if holder and os.path.isdir(self.directory(holder)):
            if not self._abandoned(holder):
                raise AlreadyExists(
                    f'the name "{state.name}" is already in use by container {holder[:12]}',
                    hint=f"kata rm {state.name} removes that one; or choose another --name",
                )
            _remove_tree(self.directory(holder))
        _unlink(link)  # left by a crash between two steps of a removal

    def _abandoned(self, container_id: str) -> bool:
        """Whether a container never came to be: the command that made it was killed."""
        try:
            with open(f"{self.directory(container_id)}/state.json", "rb") as file:
                state = parse_state(file.read())
        except FileNotFoundError:
            return not self.alive(container_id)
        except (OSError, ValueError, TypeError):
            return False
        return state.status == CREATING and not self.alive(state.sandbox or container_id)

    def save(self, state: ContainerState) -> None:
        """Replace the state on disk, all or nothing; on a full disk in the place it has."""
        path = f"{self.directory(state.id)}/state.json"
        data = json.dumps(fields(state)).encode()
        try:
            write_atomic(path, data)
        except OSError as error:
            if error.errno not in (ENOSPC, EDQUOT) or not os.path.exists(path):
                raise
            _overwrite(path, data)

    def save_spec(self, container_id: str, spec: bytes) -> None:
        """Keep the configuration that the guest was given, for ``kata inspect``; best effort."""
        try:
            write_atomic(f"{self.directory(container_id)}/config.json", spec)
        except OSError:
            pass  # nothing depends on it

    def read_spec(self, container_id: str) -> bytes:
        """What ``save_spec`` kept. Raises ``OSError``."""
        with open(f"{self.directory(container_id)}/config.json", "rb") as file:
            return file.read()

    def load(self, container_id: str) -> ContainerState:
        """The state, corrected if its supervisor died; raises ``NotFound``, ``Damaged``."""
        try:
            with open(f"{self.directory(container_id)}/state.json", "rb") as file:
                state = parse_state(file.read())
        except FileNotFoundError:
            raise NotFound(f'no such container: "{container_id}"') from None
        except (OSError, ValueError, TypeError) as error:
            raise Damaged(self.root, container_id, error) from None
        if state.id != container_id:
            raise Damaged(self.root, container_id, ValueError("it is another container's"))
        if state.status != STOPPED and not self.alive(state.sandbox or container_id):
            state = replace(
                state,
                status=STOPPED, exit_code=LOST_EXIT_CODE, pid=0, vmm_pid=0,
                error=state.error or "the supervisor of this container was killed",
            )  # fmt: skip
        return state

    def alive(self, container_id: str) -> bool:
        """Whether a supervisor holds the container."""
        try:
            lock = _lock(self.directory(container_id), fcntl.LOCK_SH)
        except OSError:
            return False
        if lock is None:
            return True
        os.close(lock)
        return False

    def ids(self) -> list[str]:
        """The ids of all directories that look like a container's."""
        try:
            names = os.listdir(self.root)
        except OSError:
            return []
        return [n for n in names if len(n) == 64 and not n.strip("0123456789abcdef")]

    def list(self, tell: Callable[[Damaged], None] | None = None) -> list[ContainerState]:
        """Every container, newest first; hidden ones are left out.

        So are those that cannot be read; ``tell`` hears of each.
        """
        states = []
        for container_id in self.ids():
            try:
                state = self.load(container_id)
            except NotFound as error:  # being made or removed just now, if it is not damaged
                if tell is not None and isinstance(error, Damaged):
                    tell(error)
                continue
            if not _is_hidden(state):
                states.append(state)
        return sorted(states, key=lambda s: s.created_ns, reverse=True)

    def find(self, reference: str) -> ContainerState:
        """A container by name, id, or unique beginning of an id; raises ``NotFound``."""
        if reference and "/" not in reference and not reference.startswith("."):
            target = _readlink(f"{self.root}/names/{reference}")
            if target:
                return self.load(target)
            matches = [i for i in self.ids() if i.startswith(reference)]
            if len(matches) == 1:
                return self.load(matches[0])
            if matches:
                raise NotFound(f'"{reference}" is ambiguous', why=f"{len(matches)} match")
        raise NotFound(f'no such container: "{reference}"', hint="kata ps -a lists them")

    def named(self, name: str) -> ContainerState | None:
        """The container of exactly this name, None if there is none."""
        target = _readlink(f"{self.root}/names/{name}")
        try:
            return self.load(target) if target else None
        except NotFound:
            return None

    def has(self, name: str) -> bool:
        """Whether a name is taken, by what is only being made or removed too."""
        return os.path.lexists(f"{self.root}/names/{name}")

    def sweep(self, name: str) -> bool:
        """Free a name whose container was never written down: a command was killed meanwhile.

        Whether there was one.
        """
        link = f"{self.root}/names/{name}"
        if not os.path.lexists(link):
            return False
        with Naming(self.root):
            holder = _readlink(link)
            if not holder or "/" in holder or self.alive(holder):
                return False
            _remove_tree(self.directory(holder))
            _unlink(link)
        return True

    def sweep_nameless(self, container_id: str) -> bool:
        """Remove a directory that was never written down, unless it is being made just now."""
        directory = self.directory(container_id)
        with Naming(self.root):
            if self.alive(container_id) or os.path.exists(f"{directory}/state.json"):
                return False
            _remove_tree(directory)
        return True

    def discard(self, container_id: str) -> None:
        """Remove one that cannot be read, with its name. Raises ``WrongState`` if it runs."""
        with Naming(self.root):
            if self.alive(container_id):
                raise WrongState(f'container "{container_id}" cannot be read, and it runs')
            _remove_tree(self.directory(container_id))
            _unlink(self.directory(container_id))  # if it is no directory
            for name in os.listdir(f"{self.root}/names"):
                if _readlink(f"{self.root}/names/{name}") == container_id:
                    _unlink(f"{self.root}/names/{name}")

    def owner(self, state: ContainerState) -> str:
        """The directory of the supervisor that has a container."""
        return self.directory(state.sandbox or state.id)

    def hide(self, state: ContainerState) -> None:
        """Give a container's name back, and keep its directory: its supervisor has others too.

        ``collect`` removes it when that has ended.
        """
        self.save(replace(state, name=state.id, auto_remove=True))
        link = f"{self.root}/names/{state.name}"
        if _readlink(link) == state.id:
            _unlink(link)

    def hidden(self, container_id: str) -> ContainerState | None:
        """The state of a container that is hidden; None if it is not."""
        try:
            state = self.load(container_id)
        except NotFound:
            return None
        return state if _is_hidden(state) else None

    def forget(self, state: ContainerState) -> None:
        """Remove the directory and the name; nothing of it must be running."""
        directory = self.directory(state.id)
        for name in _FILES:
            _unlink(f"{directory}/{name}")
        try:
            os.rmdir(directory)
        except OSError:
            _remove_tree(directory)
        link = f"{self.root}/names/{state.name}"
        if not os.path.lexists(link):
            return
        with Naming(self.root):
            if _readlink(link) == state.id:
                _unlink(link)


class Naming:
    """Held while a name is given or freed: what is looked at within does not change meanwhile.

    The kernel lets go of it if its holder is killed; nothing in here waits for anything. Raises
    ``OSError``.
    """

    def __init__(self, root: str) -> None:
        self._path = f"{root}/names"
        self._fd = -1

    def __enter__(self) -> None:
        self._fd = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        fcntl.flock(self._fd, fcntl.LOCK_EX)

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)


def _is_hidden(state: ContainerState) -> bool:
    return state.auto_remove and bool(state.bundle)


def write_atomic(path: str, data: bytes, mode: int = 0o600) -> None:
    """Write a file so that a reader, or a crash, sees the old or the new content whole."""
    temporary = f"{path}.{os.getpid()}.new"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    try:
        while data:
            data = data[os.write(fd, data) :]
    except OSError:
        _unlink(temporary)
        raise
    finally:
        os.close(fd)
    os.rename(temporary, path)


def _overwrite(path: str, data: bytes) -> None:
    """Write a file over itself, in one call: its blocks are there however full the disk is."""
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        data = data.ljust(os.fstat(fd).st_size)
        if os.write(fd, data) != len(data):
            raise OSError(ENOSPC, os.strerror(ENOSPC))
    finally:
        os.close(fd)


_KINDS = {"str": str, "int": int, "bool": bool}  # by how they are written; others are arrays


def parse_state(data: bytes) -> ContainerState:
    """A state as it is on disk; fields of a younger version are passed over.

    Raises ``ValueError`` or ``TypeError``.
    """
    raw: dict[str, Any] = json.loads(data)
    if type(raw) is not dict:
        raise TypeError("it is no object")
    known = {k: raw[k] for k in raw if k in ContainerState.__annotations__}
    for name, value in known.items():
        kind = ContainerState.__annotations__[name]
        if type(value) is not _KINDS.get(kind, list):
            raise TypeError(f'"{name}" is of another kind')
    for words in ("command", "traces"):
        known[words] = tuple(known.get(words, ()))
        if not all(type(word) is str for word in known[words]):
            raise TypeError(f'"{words}" is not of texts')
    for pairs in ("labels", "annotations"):
        known[pairs] = tuple((k, v) for k, v in known.get(pairs, ()))
        if not all(type(k) is type(v) is str for k, v in known[pairs]):
            raise TypeError(f'"{pairs}" is not of texts')
    return ContainerState(**known)


def _lock(directory: str, kind: int = fcntl.LOCK_EX) -> int | None:
    """A descriptor holding the lock of a container directory, or None if another holds it.

    Those who only ask share the lock, so that two who ask do not take each other for the owner;
    the owner, who makes the directory, waits for the moment that one who asks may hold it.
    """
    owner = kind == fcntl.LOCK_EX
    make = os.O_CREAT if owner else 0  # who only asks makes nothing
    fd = os.open(f"{directory}/lock", os.O_RDWR | make | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, kind if owner else kind | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    return fd


def _readlink(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:
        pass


def _remove_tree(directory: str) -> None:
    from shutil import rmtree

    rmtree(directory, ignore_errors=True)
