"""``kata-runtime create``: a container up to the start of its process, and its stand-in.

The order: the bundle is read and checked; the supervisor is forked (or that of the pod is asked)
and starts the virtual machine; the stand-in is forked; hooks run while the guest comes up; then
the container is made in the guest, and the pid file written.
"""

from __future__ import annotations

import os
import time
from _socket import AF_UNIX, SOCK_CLOEXEC, SOCK_STREAM, socketpair

from kata.cli.runtime.containers import check_id
from kata.cli.runtime.handover import (
    open_terminal,
    own_streams,
    send_pidfd,
    send_terminal,
    write_pid_file,
)
from kata.cli.runtime.start import start
from kata.config.load import load
from kata.errors import AlreadyExists, HostError, InvalidInput, InvalidSpec, KataError, Unsupported
from kata.oci import pods
from kata.oci.honoured import drop_unknown_capabilities, refuse
from kata.oci.spec import namespaces, parse
from kata.runtime import standin
from kata.runtime.control import ControlClient
from kata.runtime.control_calls import CreateRequest
from kata.runtime.store import STOPPED, ContainerState, Store, new_id
from kata.wire import quickjson
from kata.wire.record import fields, record, replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from kata.cli.parse import Options
    from kata.config.settings import Config
    from kata.runtime.standin import Standin
    from kata.runtime.supervisor import Supervisor

    Spec = dict[str, Any]

_CONFIG = "config.json"
_NULL_DEVICE = os.makedev(1, 3)


@record
class Made:
    """A container that was made: its state, its stand-in, where it is kept."""

    store: Store
    state: ContainerState
    standin: Standin


def run(options: Options) -> int:
    """Make a container, and leave."""
    create(options)
    return 0


def create(options: Options, streams: dict[int, int] | None = None) -> Made:
    """Make a container; ``streams`` are its standard streams unless it has ours.

    Raises what is wrong with the request; then nothing is left of it.
    """
    container_id = check_id(options.words[0])
    config = load(options.config)
    bundle = os.path.abspath(options.bundle or ".")
    spec = read_spec(bundle)
    for name in drop_unknown_capabilities(spec["process"]):
        from kata.cli.runtime.report import log

        log("warning", f"ignoring unknown capability {name}", options)
    _refuse(options, spec)
    membership = pods.membership(container_id, spec.get("annotations") or {})
    store = Store(options.root or config.runtime.state_root)
    state = _state(container_id, spec, bundle)
    state = replace(state, **_group(options, spec, container_id))
    sandbox = _sandbox(store, membership, spec)
    if sandbox is not None:
        state = replace(state, sandbox=sandbox.sandbox or sandbox.id)
    return _Creation(options, config, store, state, spec).go(streams)


def _sandbox(store: Store, membership: pods.Membership, spec: Spec) -> ContainerState | None:
    """A container of the sandbox to join, None for a sandbox of its own. Raises ``InvalidInput``.

    Annotations say it; without them, who names the namespaces of a container shares its machine.
    """
    if membership.kind == pods.SANDBOX:
        return None
    if membership.kind == pods.ALONE:
        paths = [path for path in namespaces(spec).values() if path]
        return _owner(store, paths) if paths else None
    found = store.named(membership.sandbox)
    if found is None and membership.dropped:
        return _mate(store, membership)
    if found is None:
        raise InvalidInput(
            f'the container belongs to sandbox "{membership.sandbox}"',
            why="there is no such sandbox",
        )
    return found


def _mate(store: Store, membership: pods.Membership) -> ContainerState | None:
    """A container that lives in the pod; None if this one is to be the first."""
    for state in store.list():
        there = state.pid and state.status != STOPPED
        if there and pods.membership(state.name, dict(state.annotations)) == membership:
            return state
    return None


def _owner(store: Store, paths: list[str]) -> ContainerState | None:
    """A running container whose stand-in has one of these namespaces."""
    wanted = set()
    for path in paths:
        try:
            wanted.add(os.stat(path).st_ino)
        except OSError:
            continue  # refused where it is used
    for state in store.list():
        if state.pid and state.bundle and wanted & set(_namespaces_of(state.pid)):
            return state
    return None


def _namespaces_of(pid: int) -> list[int]:
    try:
        kinds = ("net", "pid", "ipc", "uts", "user")
        found = [os.stat(f"/proc/{pid}/ns/{kind}").st_ino for kind in kinds]
        return found if found[-1] != os.stat("/proc/self/ns/user").st_ino else found[:-1]
    except OSError:
        return []


def read_spec(bundle: str) -> Spec:
    """The checked config.json of a bundle. Raises ``InvalidInput``, ``InvalidSpec``."""
    path = f"{bundle}/{_CONFIG}"
    try:
        with open(path, "rb") as file:
            text = file.read()
    except FileNotFoundError:
        if not os.path.isdir(bundle):
            raise InvalidInput(
                f"chdir {bundle}", why="no such file or directory", hint="see --bundle"
            ) from None
        raise InvalidInput(
            f'JSON specification file {_CONFIG} not found in "{bundle}"',
            hint="kata-runtime spec writes one",
        ) from None
    except OSError as error:
        raise HostError(f'cannot read "{path}"', why=error.strerror or "") from None
    return parse(text)


def _refuse(options: Options, spec: Spec) -> None:
    """What is known to be impossible, before anything is there."""
    if int(options.preserve_fds or 0):
        raise Unsupported(
            "--preserve-fds is not supported",
            why="descriptors of the host mean nothing in a virtual machine",
        )
    refuse(spec)
    terminal = bool(spec["process"].get("terminal"))
    if options.verb == "create" and terminal and not options.console_socket:
        raise InvalidInput("cannot allocate tty if runc will detach without setting console socket")
    if not terminal and options.console_socket:
        raise InvalidInput("cannot use console socket if runc will not detach or allocate tty")


def _state(container_id: str, spec: Spec, bundle: str) -> ContainerState:
    rootfs = os.path.normpath(os.path.join(bundle, spec["root"]["path"]))
    if not os.path.isdir(rootfs):
        raise InvalidSpec("root.path", f'rootfs ("{rootfs}") does not exist')
    return ContainerState(
        id=new_id(), name=container_id, command=tuple(spec["process"]["args"]),
        created_ns=time.time_ns(), terminal=bool(spec["process"].get("terminal")),
        bundle=bundle, rootfs=rootfs, hooks=any((spec.get("hooks") or {}).values()),
        annotations=tuple((spec.get("annotations") or {}).items()),
    )  # fmt: skip


def _pod_supervisor() -> type[Supervisor]:
    from kata.runtime.pod import PodSupervisor

    return PodSupervisor


def _group(options: Options, spec: Spec, container_id: str) -> dict[str, object]:
    """Where the control group is, and whether systemd makes it. Raises ``HostError``."""
    path = (spec.get("linux") or {}).get("cgroupsPath") or ""
    if options.systemd_cgroup or options.cgroup_manager == "systemd":
        from kata.resources import systemd

        systemd.require()
        scope = systemd.unit(path, container_id)
        parent = systemd.slice_path(scope.slice)
        cgroup = f"{parent}/{scope.name}" if parent else scope.name
        return {"cgroup": cgroup, "systemd_slice": scope.slice}
    from kata.resources.plan import place

    return {"cgroup": "/".join(filter(None, place(path, container_id)))}


class _Creation:
    """One creation: what it has made so far, to be undone or handed over."""

    def __init__(
        self, options: Options, config: Config, store: Store, state: ContainerState, spec: Spec
    ) -> None:
        self._options = options
        self._config = config
        self._store = store
        self._state = state
        self._spec = spec
        self._hooks: dict[str, Any] = spec.get("hooks") or {}
        self._master = self._slave = self._lock = -1
        self._standin: Standin | None = None

    def go(self, streams: dict[int, int] | None) -> Made:
        """Make it."""
        try:
            self._lock = self._store.create(self._state)
        except AlreadyExists:
            raise AlreadyExists("container with given ID already exists") from None
        try:
            self._store.save_spec(self._state.id, quickjson.dumps(self._spec).encode())
            if self._hooks:
                from kata.cli.runtime.hooks import keep

                keep(self._store, self._state, self._hooks)
            launch = None if self._state.sandbox else self._resolve()
            network = self._network()
            if self._state.terminal and streams is None:
                self._master, self._slave = open_terminal(self._spec["process"])
            client, other = (
                self._join() if launch is None else self._fork(launch, network)
            )
            place = self._place(network)
            self._standin = standin.fork(other, self._state.id, place)
            if place.users >= 0:
                os.close(place.users)
            other.close()
            self._run_hooks(network)
            self._ask(client, streams)
            self._announce()
            client.close()
        except BaseException:
            self._undo()
            raise
        assert self._standin is not None
        return Made(self._store, self._state, self._standin)

    def _place(self, network: int) -> standin.Place:
        """Where the stand-in lives: what engines look for behind the container's pid."""
        from kata.runtime.bundle import host_binds
        from kata.runtime.shadow import Shadow

        binds = host_binds(self._spec, self._state.bundle)
        return standin.Place(
            self._state.command, terminal=self._slave, network=network,
            shadow=Shadow(self._state.rootfs, binds), users=user_namespace(self._spec),
            orphaned=self._take_back,
        )  # fmt: skip

    def _resolve(self) -> Any:
        """The machine and its template; makes the template if it is the first of its shape."""
        from kata.oci.pods import sizing
        from kata.runtime.machines import resolve_shape

        return resolve_shape(sizing(self._spec), self._config, say=lambda _text: None)

    def _network(self) -> int:
        """The network namespace of the sandbox: the engine's, or one of its own."""
        from kata.runtime.bundle_workload import open_network

        return open_network(self._spec)

    def _fork(self, launch: Any, network: int) -> tuple[ControlClient, ControlClient]:
        """The supervisor of a new sandbox; two connections to it, for us and for the stand-in."""
        from kata.runtime.birth import Child
        from kata.runtime.bundle_workload import BundleWorkload

        pairs = [socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC) for _ in range(2)]
        given = [*(theirs.fileno() for _, theirs in pairs), self._lock, network]
        if not self._adopted(launch, given) and os.fork() == 0:
            data_root = self._config.runtime.data_root
            first = BundleWorkload(self._state, self._spec, data_root, network)
            child = Child(
                (first, launch), self._config, self._store, self._state, _pod_supervisor
            )
            child.supervise([theirs for _, theirs in pairs], {}, {self._lock, network})
        self._let_go()
        for _, theirs in pairs:
            theirs.close()
        return ControlClient(pairs[0][0]), ControlClient(pairs[1][0])

    def _adopted(self, launch: Any, given: list[int]) -> bool:
        """Whether a ready sandbox of the pool, if there is one, has become the container's."""
        from kata.runtime.machines import ready

        member = ready(self._config, launch)
        title = ["kata-runtime", "create", self._state.name]
        order = {
            "kind": "engine", "store": self._store.root, "id": self._state.id, "title": title,
        }  # fmt: skip
        return member is not None and member.hand(order, given)

    def _let_go(self) -> None:
        """The lock is the supervisor's from now on."""
        os.close(self._lock)
        self._lock = -1

    def _join(self) -> tuple[ControlClient, ControlClient]:
        """Two connections to the supervisor of the pod."""
        from kata.cli.runtime.containers import connect

        self._let_go()  # its sandbox's counts
        return connect(self._store, self._state), connect(self._store, self._state)

    def _run_hooks(self, network: int) -> None:
        if not self._hooks:
            return
        from kata.cli.runtime.hooks import state_document
        from kata.runtime.hooks import run_all

        assert self._standin is not None
        text = state_document(self._state, pid=self._standin.pid)
        here = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        os.chdir(self._state.bundle)  # where runc's are
        try:
            for kind in ("prestart", "createRuntime"):
                run_all(kind, self._hooks.get(kind) or (), text)
            last = self._hooks.get("createContainer") or ()
            run_all("createContainer", last, text, network=network)
        finally:
            os.fchdir(here)
            os.close(here)

    def _ask(self, client: ControlClient, streams: dict[int, int] | None) -> None:
        """Let the supervisor make the container in the guest."""
        assert self._standin is not None
        passed = self._streams() if streams is None else streams
        request = CreateRequest(
            container_id=self._state.id, pid=self._standin.pid, streams=list(passed)
        )
        if self._state.sandbox:
            request.spec = quickjson.dumps(self._spec).encode()
            request.state = quickjson.dumps(fields(self._state)).encode()
        client.tell("Create", request, list(passed.values()))

    def _streams(self) -> dict[int, int]:
        """Our own standard streams as far as they are something, or the terminal."""
        if self._slave >= 0:
            return {0: self._slave, 1: self._slave}
        return own_streams()

    def _announce(self) -> None:
        """Say where the process is: the terminal, the pid, and the word to the stand-in."""
        assert self._standin is not None
        if self._options.console_socket and self._master >= 0:
            send_terminal(self._options.console_socket, self._master)
        if self._options.pidfd_socket:
            send_pidfd(self._options.pidfd_socket, self._standin.pid)
        if self._options.pid_file:
            write_pid_file(self._options.pid_file, self._standin.pid)
        self._standin.confirm()

    def _take_back(self, client: ControlClient) -> None:
        """What the stand-in does when we were killed: nothing is left of a creation half done.

        By its own connection, which is there before any other can be made.
        """
        from kata.cli.runtime.delete import delete
        from kata.wire.calls import DeleteRequest

        try:
            client.tell("Delete", DeleteRequest(container_id=self._state.id, force=True))
        except KataError:
            pass  # not made, and not to be made any more
        delete(self._store, replace(self._state, hooks=False), force=True)

    def _undo(self) -> None:
        if self._lock >= 0:
            os.close(self._lock)
        if self._standin is not None:
            self._standin.abandon()
        from kata.runtime.cleanup import remove

        try:
            if self._state.sandbox:
                self._store.forget(self._state)
            else:
                remove(self._store, self._state, force=True)
        except KataError:
            pass  # the error that led here is the one to tell


def user_namespace(spec: Spec) -> int:
    """The user namespace of a container's stand-in by descriptor; -1 without one.

    Raises ``InvalidSpec``.
    """
    path = namespaces(spec).get("user")
    if path is None:
        return -1
    from kata.linux import users

    linux = spec["linux"]
    try:
        if path:
            return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        uids, gids = users.parse(linux["uidMappings"]), users.parse(linux["gidMappings"])
        return users.new(uids, gids)[0]
    except OSError as error:
        raise InvalidSpec(
            "linux.namespaces", f"the user namespace: {error.filename}: {error.strerror}"
        ) from None


def started(made: Made) -> None:
    """Start what was made."""
    state = made.store.named(made.state.name)
    assert state is not None
    start(made.store, state)
