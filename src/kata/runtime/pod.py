"""The supervisor of an engine's sandbox: containers come, start and go by control calls.

A container's process is stood for on the host by its stand-in (``standin``): when that is killed,
the process is. The rule: the sandbox ends when the container it was started for has ended and no
other one runs; until then containers may come and go in it.
"""

from __future__ import annotations

import _thread
import gc
import os
import select
import time

from kata.errors import AlreadyExists, InvalidInput, KataError, NotFound, WrongState
from kata.linux.namespaces import path_of, with_mounts_of
from kata.oci.spec import namespaces
from kata.resources.group import create as create_group
from kata.resources.oom import echo_oom
from kata.resources.plan import Limits
from kata.runtime import store as states
from kata.runtime.bundle import asks_engine
from kata.runtime.bundle_workload import BundleWorkload
from kata.runtime.container import Container
from kata.runtime.control_api import PidsResponse
from kata.runtime.lifetime import KILL, Event, Lifetime
from kata.runtime.store import parse_state
from kata.runtime.supervisor import Supervisor
from kata.wire import quickjson
from kata.wire.agent_api import CONTAINER_PREFIX, Empty

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket
    from collections.abc import Mapping
    from typing import Any

    from kata.resources.group import Group
    from kata.runtime import control_api
    from kata.runtime.sandbox import Sandbox
    from kata.runtime.store import ContainerState, Store
    from kata.runtime.timing import Marks
    from kata.wire import agent_api
    from kata.wire.agent_api import CreateContainerRequest

_SETTLED_S = 0.2
_LATEST_S = 5.0


class PodSupervisor(Supervisor):
    """One virtual machine for a container and, in a pod, for those that join it."""

    def __init__(
        self, sandbox: Sandbox, first: BundleWorkload, store: Store, state: ContainerState,
        marks: Marks,
    ) -> None:  # fmt: skip
        super().__init__(sandbox, first, store, state, marks)
        self._data_root = first.data_root
        self._asked, self._over = Event(), Event()
        self._groups: dict[str, Group] = {}  # of members; the first one's is the sandbox's
        self._create: tuple[control_api.CreateRequest, list[int]] | None = None
        self._changing = _thread.allocate_lock()  # which containers there are
        self._resolving = _thread.allocate_lock()
        self._joining = _thread.allocate_lock()
        first.owner = self._namespace
        self._control.handlers.update({
            "Create": self._on_create, "Start": self._on_start, "Delete": self._on_delete,
            "Standins": self._on_standins,
        })  # fmt: skip

    def _serve(self, channel: socket) -> None:
        self._control.serve(channel, self._hung_up)

    def _hung_up(self) -> None:
        """The engine's command ended: without a container there is nobody to serve."""
        self._asked.set()

    def _give_up(self, error: KataError) -> None:
        super()._give_up(error)
        self._asked.wait(_LATEST_S)  # the command has yet to ask, and to hear of it
        if self._create is None:  # no command is left that would remove it
            from kata.runtime.cleanup import remove_groups

            remove_groups(self._first.state)

    def _start(self, fds: Mapping[int, int]) -> None:
        """Bring the guest up, and make the first container as soon as it is asked for."""
        del fds
        sandbox, life = self._sandbox, self._first
        self._control.listen(self._store.directory(life.state.id))
        plan = None if life.workload.deferred else sandbox.prepare()
        client = sandbox.connect()
        configured = sandbox.configure() if plan is None else None  # one that runs: meanwhile
        self._asked.wait()
        if self._create is None:
            raise KataError("nobody asked for the container any more")
        request, passed = self._create
        sandbox.grouping.enter_meanwhile((request.pid, os.getpid()))
        if plan is None:
            plan = with_mounts_of(request.pid, lambda: sandbox.add(life.workload))
        client.cork()
        configured = configured or sandbox.configure()
        told = sandbox.tell_network()
        self._look_at_names()
        container = Container(client, life.state.id)
        plan.stdin = 0 in request.streams
        created = container.begin(plan)
        self._attach(container, plan, request, passed)
        client.uncork()
        sandbox.wait_ready()
        sandbox.check_guest(configured)
        if told is not None:
            told.result(sandbox.create_timeout)
        created.result(sandbox.create_timeout)
        self._made(life, container, request.pid)
        sandbox.follow_network(_warn, self._look_at_names)
        gc.enable()
        _thread.start_new_thread(self._settle, ())

    def _look_at_names(self) -> None:
        """Pass queries on as soon as a container's resolv.conf names the engine's resolver.

        Engines write that before create or before start, or when a network is joined later.
        """
        lives = list(self._lives.values())
        if any(asks_engine(life.workload.resolv_conf) for life in lives):
            with self._resolving:
                self._sandbox.resolve_names(_warn)

    @staticmethod
    def _attach(
        container: Container, plan: CreateContainerRequest, request: control_api.CreateRequest,
        passed: list[int],
    ) -> None:  # fmt: skip
        fds = dict(zip(request.streams, passed, strict=False))
        outputs = tuple(n for n, on in ((1, plan.stdout), (2, plan.stderr)) if on)
        container.attach(container.init, fds, outputs=outputs)

    def _settle(self) -> None:
        """What nobody waits for: the clock, now that the guest answers quickly; ports."""
        time.sleep(_SETTLED_S)
        try:
            self._sandbox.correct_clock()
        except KataError:
            return  # the end of the guest is reported where its containers are waited for
        try:
            self._sandbox.forward_ports()
        except KataError as error:
            _warn(error)

    def _made(self, life: Lifetime, container: Container, pid: int) -> None:
        """A container waits in the guest for its start."""
        life.container = container
        sandbox = self._sandbox
        life.change(
            status=states.CREATED,
            pid=pid,
            vmm_pid=sandbox.vmm_pid,
            template=sandbox.template,
            accelerator=sandbox.accelerator,
            traces=sandbox.traces if life is self._first else (),
        )
        self._enter_group(life, pid)  # engines look there as soon as create is done
        life.created.set()
        self._follow(life, pid, "")
        self._see_to_its_end(life)

    def _see_to_its_end(self, life: Lifetime) -> None:
        """From now on somebody waits for the end of a container."""
        _thread.start_new_thread(self._watch, (life,))

    def _enter_group(self, life: Lifetime, pid: int) -> None:
        """The stand-in lives where the engine looks for the container's processes."""
        if life is self._first:
            self._sandbox.grouping.enter((pid, os.getpid()))
            return
        parent, name = life.workload.group
        group = create_group(name, Limits(tasks=0), parent=parent)
        group.enter((pid,))
        self._groups[life.state.id] = group

    def _watch(self, life: Lifetime) -> None:
        """See a container to its end, and the sandbox to its own if it was the last."""
        end = self._wait_for(life)
        life.end(end)
        life.started.set()  # whoever waits for the start hears that it ended
        assert life.container is not None
        life.container.init.drain()
        over = self._is_over()
        if over:
            self._sandbox.stop()
        if life.result.oom_killed:
            self._echo_oom(life, over=over)
        if over:
            self._over.set()
        life.finished.set()

    def _echo_oom(self, life: Lifetime, *, over: bool) -> None:
        """Let an engine that watches the host's control group see what happened in the guest's."""
        group = self._groups.get(life.state.id)
        if life is self._first:
            group = self._sandbox.group if over else None  # while it runs, the group is the VMM's
        if group is not None:
            echo_oom(group)

    def _is_over(self) -> bool:
        with self._changing:
            return all(life.exited.wait(0) for life in self._lives.values())

    def _until_end(self) -> None:
        self._over.wait()
        self._sandbox.stop()
        self._control.close()
        for life in self._lives.values():
            life.finished.wait(1)

    def _follow(self, life: Lifetime, pid: int, exec_id: str) -> None:
        try:
            pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            pidfd = -1
        if exec_id:
            life.execs[exec_id] = pid
        _thread.start_new_thread(self._kill_after, (life, pidfd, exec_id))

    @staticmethod
    def _kill_after(life: Lifetime, pidfd: int, exec_id: str) -> None:
        """Wait for the end of a stand-in; a process that still runs was meant to be killed."""
        if pidfd >= 0:
            poll = select.poll()
            poll.register(pidfd, select.POLLIN)
            poll.poll()
            os.close(pidfd)
        life.execs.pop(exec_id, None)
        if life.container is None or life.exited.wait(0):
            return
        try:
            life.container.signal(KILL, exec_id)
        except KataError:
            pass  # it has ended, or the guest has

    def _namespace(self, kind: str, path: str) -> str:
        """The guest's path of a namespace that the engine names by a path on the host.

        "" for a new one: CRI-O makes the namespaces of a pod, in files, before any container.
        """
        try:
            wanted = os.stat(path).st_ino
        except OSError as error:
            raise WrongState(f'the {kind} namespace "{path}"', why=error.strerror or "") from None
        if kind == "user" and wanted == _inode(path_of(kind)):
            raise InvalidInput(
                f'the user namespace "{path}" is the host\'s',
                hint="leave it out: the container then has that of its virtual machine",
            )
        living = [life for life in list(self._lives.values()) if not life.exited.wait(0)]
        for life in living:  # by the pid first: pids of one process may lead to the same namespace
            if path == path_of(kind, life.state.pid):
                return f"{CONTAINER_PREFIX}{life.state.id}"
        for life in living:
            if wanted == _inode(path_of(kind, life.state.pid)):
                return f"{CONTAINER_PREFIX}{life.state.id}"
        if not path.startswith("/proc/") and wanted != _inode(f"/proc/self/ns/{kind}"):
            return self._kept_in_a_file(kind, wanted)
        raise WrongState(
            f'cannot join the {kind} namespace "{path}"',
            why="it is of no container in this virtual machine",
            hint="containers share namespaces within a pod",
        )

    def _kept_in_a_file(self, kind: str, wanted: int) -> str:
        """The guest's path of the namespace of a container that named the same; "" if none did."""
        for life in list(self._lives.values()):
            workload = life.workload
            if not isinstance(workload, BundleWorkload) or life.container is None:
                continue
            named = namespaces(workload.spec).get(kind) or ""
            if named and not life.exited.wait(0) and _inode(named) == wanted:
                return f"{CONTAINER_PREFIX}{life.state.id}"
        return ""

    # What follows answers control calls, each in a thread of its own.

    def _on_create(self, request: control_api.CreateRequest, fds: list[int]) -> Empty:
        if not request.spec:
            self._create = (request, fds)
            self._asked.set()
            self._first.created.wait()
            if self._first.failure is not None:
                raise self._first.failure
            return Empty()
        try:
            life = self._admit(request)
        except BaseException:
            for fd in fds:
                os.close(fd)
            raise
        try:
            self._join(life, request, fds)
        except KataError as error:
            failure = self._sandbox.explain(error)
            self._leave(life)
            life.fail(failure)
            raise failure from None
        return Empty()

    def _admit(self, request: control_api.CreateRequest) -> Lifetime:
        """Take a container into the books of the sandbox. Raises ``WrongState``."""
        if not self._first.exited.wait(0):
            self._first.present()
        state = parse_state(request.state)
        workload = self._workload(state, quickjson.loads(request.spec))
        workload.owner = self._namespace
        with self._changing:
            if state.id in self._lives:
                raise AlreadyExists(f'container "{state.name}" exists')
            if self._over.wait(0):
                raise WrongState("the sandbox has ended")
            life = self._lives[state.id] = Lifetime(workload, state, self._store)
        return life

    def _workload(self, state: ContainerState, spec: dict[str, Any]) -> BundleWorkload:
        """What a further container is."""
        return BundleWorkload(state, spec, self._data_root)

    def _join(self, life: Lifetime, request: control_api.CreateRequest, fds: list[int]) -> None:
        client = self._sandbox.client
        container = Container(client, life.state.id)
        with self._joining:  # the share, and what is corked, are one container's at a time
            try:
                with self._promising:
                    if life.memory_limit:
                        self._make_room(life, life.memory_limit)
                # engines may mount a container's files where only its own command sees them, as
                # Podman does for user namespaces; the stand-in is that command's child
                plan = with_mounts_of(request.pid, lambda: self._sandbox.add(life.workload))
            except BaseException:
                for fd in fds:
                    os.close(fd)
                raise
            plan.stdin = 0 in request.streams
            client.cork()
            created = container.begin(plan)
            self._attach(container, plan, request, fds)
            client.uncork()
        created.result(self._sandbox.create_timeout)
        self._made(life, container, request.pid)

    def _leave(self, life: Lifetime) -> None:
        self._groups.pop(life.state.id, None)
        with self._joining:
            self._sandbox.remove(life.state.id)
        with self._changing:
            self._lives.pop(life.state.id, None)

    def _on_start(self, request: agent_api.ContainerRequest, _fds: list[int]) -> Empty:
        life = self._life(request.container_id)
        container = life.present()
        with self._changing:
            if life.state.status != states.CREATED:
                raise WrongState("cannot start an already running container")
            life.change(status=states.RUNNING, started_ns=time.time_ns())
        try:
            self._look_at_names()
            container.start().result(self._sandbox.create_timeout)
        except KataError as error:
            raise self._sandbox.explain(error) from None
        life.started.set()
        self._sandbox.follow_files()
        if life is self._first:
            self._sandbox.limit()
        return Empty()

    def _on_delete(self, request: agent_api.DeleteRequest, _fds: list[int]) -> Empty:
        life = self._life(request.container_id)
        if not life.exited.wait(0):
            if life.started.wait(0) and not request.force:
                raise WrongState(
                    f'cannot delete container "{life.state.name}" that is not stopped: '
                    f"{life.state.status}"
                )
            try:
                life.present().signal(KILL)
            except NotFound:
                pass
            life.finished.wait()
        if life is self._first:
            return Empty()  # with its supervisor; the command line removes the rest
        if not self._over.wait(0):
            try:
                assert life.container is not None
                life.container.delete()
            except KataError:
                pass  # gone with the guest
        self._leave(life)
        self._store.forget(life.state)
        return Empty()

    def _on_standins(
        self, request: agent_api.ContainerRequest, _fds: list[int]
    ) -> control_api.PidsResponse:
        life = self._life(request.container_id)
        life.present()
        return PidsResponse(pids=[life.state.pid, *life.execs.values()])


def _inode(path: str) -> int:
    try:
        return os.stat(path).st_ino
    except OSError:
        return 0


def tell_guest(sandbox: Sandbox) -> None:
    """Make the guest itself, before there is a container. Raises as ``Sandbox.check_guest``."""
    client = sandbox.client
    client.cork()
    configured = sandbox.configure()
    told = sandbox.tell_network()
    client.uncork()
    sandbox.check_guest(configured)
    if told is not None:
        told.result(sandbox.create_timeout)


def _warn(error: KataError) -> None:
    """What could not be done about a change of the network; into the supervisor's log."""
    os.write(2, f"network: {error}\n".encode())
