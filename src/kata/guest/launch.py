"""Making containers and their processes: from a request to a forked child, and back to nothing.

The rule: what fails half way is undone before the error is passed on.
"""

from __future__ import annotations

import os
from select import EPOLLIN

from kata.errors import GuestError, InvalidInput, WrongState
from kata.guest import files, prepared, scheduling, settled, spawn, staged, users
from kata.guest import pipes as wires
from kata.guest.child import Child
from kata.guest.container import Container
from kata.guest.process import Outcome, Process
from kata.guest.spec import (
    MALFORMED,
    bounding_set,
    document,
    filter_of,
    in_shared_network,
    namespaces,
    root_part,
)
from kata.guest.storage import Storages
from kata.linux import devicefilter
from kata.linux import namespaces as ns
from kata.linux.cgroup2 import Group
from kata.wire.agent_api import CONTAINER_PREFIX, SANDBOX_NETWORK, Empty

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from kata.guest.loop import Loop
    from kata.guest.spec import Spec
    from kata.wire.agent_api import (
        CreateContainerRequest,
        PrepareRequest,
        Program,
        Storage,
        UpdateTreeRequest,
    )

_TRIES = 200  # for a control group to become empty once everything in it was killed


class Launcher:
    """Makes containers and processes, keeps the parked child."""

    def __init__(
        self, loop: Loop, run: str, cgroup: str, containers: dict[str, Container],
        move_network: Callable[[int], None],
    ) -> None:  # fmt: skip
        """``move_network`` moves the sandbox's to another namespace, and the agent along."""
        self._move_network = move_network
        self._loop, self._run, self._cgroup, self._containers = loop, run, cgroup, containers
        self._storages = Storages()
        self._made = 0
        self._parked: prepared.Parked | None = None
        self._rooted: prepared.Root | None = None
        self._settled: Process | None = None  # that of the parked child, once that is settled
        os.makedirs(run, 0o700, exist_ok=True)

    def park(self, *, shares_network: bool = False) -> Outcome:
        """Fork a parked child; the outcome is there when it waits."""
        outcome = Outcome()
        if self._parked is not None:
            outcome.settle(Empty())
            return outcome
        self._storages.look_for_disks()
        parked = prepared.park(
            f"{self._run}/stage", self._new_group(), shares_network=shares_network
        )

        def made() -> None:
            self._parked = parked

        self._await(parked, prepared.PARKED, outcome, made)
        return outcome

    def keep(self, storages: Sequence[Storage]) -> None:
        """Mount what containers may use; it stays when none does. Raises as mounting does."""
        for storage in storages:
            self._storages.mount(storage)

    def root(self, request: PrepareRequest) -> Outcome:
        """Let the parked child make its root; the outcome is there when it waits again."""
        parked = self._parked
        if parked is None or self._rooted is not None:
            raise WrongState("there is no parked container without a root")
        spec = document(request.spec, "the container's specification")
        points = tuple(self._storages.mount(storage) for storage in request.storages)
        seccomp, flags = filter_of(request.seccomp)
        kinds, process = namespaces(spec), spec.get("process")
        rooted = prepared.Root(
            tuple(s.encode() for s in request.storages), root_part(spec), points, kinds,
            process is not None,
            prepared.make_files(self._directory(parked.group), request.files),
        )  # fmt: skip
        mounted = any(s.mount_point == spec["root"]["path"] for s in request.storages)
        if parked.shares_network:
            spec = in_shared_network(spec)
        wires.send_plan(parked.pipes.go, {
            prepared.ROOTED: True, "spec": spec, "mounted": mounted, "process": process,
            "seccomp": seccomp, "seccomp_flags": flags, "files": rooted.files.sources(),
            "streams": (False, True, True), "init": False,
        })  # fmt: skip
        outcome = Outcome()

        def made() -> None:
            self._rooted = rooted
            if rooted.settled and kinds.get("uts") == "":
                # what names this machine names its first container, which may not do it any more
                ns.enter("uts", ns.path_of("uts", parked.pid))
            if rooted.settled:
                pid, pipes = parked.pid, parked.pipes
                process = Process(self._loop, "", pid, pipes, terminal=False, alone=True)
                process.settled()
                self._settled = process

        self._await(parked, prepared.ROOTED, outcome, made)
        return outcome

    def _await(
        self, parked: prepared.Parked, word: str, outcome: Outcome, made: Callable[[], None]
    ) -> None:
        """Settle the outcome when the parked child reports ``word``, or why it does not."""
        reports = wires.Reports()

        def ready(_events: int) -> None:
            data = os.read(parked.pipes.report, 4096)
            for item in reports.receive(data):
                self._loop.forget(parked.pipes.report)
                if item[0] == word:
                    made()
                    outcome.settle(Empty())
                else:
                    outcome.settle(wires.failure_of(item))
            if not data:
                self._loop.forget(parked.pipes.report)
                outcome.settle(GuestError("the prepared container died"))

        self._loop.watch(parked.pipes.report, EPOLLIN, ready)

    def _directory(self, group: Group) -> str:
        """Where the files of the container with this group are kept."""
        return f"{self._run}/{os.path.basename(group.path)}"

    def _new_group(self) -> Group:
        self._made += 1
        group = Group(f"{self._cgroup}/c{self._made}")
        group.make()
        return group

    def create(self, request: CreateContainerRequest) -> Container:
        """Fork the first process of a new container, or wake the parked child for it."""
        if request.program is not None:
            return self._run_settled(request, request.program)
        spec = document(request.spec, "the container's specification")
        try:
            return self._create(request, spec)
        except MALFORMED as error:
            why = f"{type(error).__name__}: {error}"
            raise InvalidInput("the container's specification is malformed", why=why) from None

    def _run_settled(self, request: CreateContainerRequest, program: Program) -> Container:
        """Tell the settled child its program."""
        parked, rooted, process = self._parked, self._rooted, self._settled
        if parked is None or rooted is None or process is None:
            raise WrongState("there is no container that waits for a program")
        files = rooted.files
        same = tuple(f.path for f in request.files) == files.paths
        if not (same and request.stdout and request.stderr and program.args):
            raise InvalidInput("the container was prepared with other files or streams")
        container = Container(self._loop, request.container_id, parked.group, rooted.kinds)
        try:
            if program.resources:
                parked.group.set(document(program.resources, "resources"))
        except BaseException:
            self._discard_parked()
            raise
        self._rooted = self._parked = self._settled = None
        container.storages += rooted.points
        # nothing is closed on the way to the program
        container.held = (*parked.namespaces, parked.devices_fd, *files.fds)
        container.directory = files.directory
        for fd, file in zip(files.fds, request.files, strict=True):
            os.pwrite(fd, file.content, 0)
        told = settled.told(program.args, program.env, stdin=request.stdin)
        process.begin(
            wires.packed(told), stdin=request.stdin, unhurried=program.unhurried
        )  # fmt: skip
        container.init = process
        return container

    def _create(self, request: CreateContainerRequest, spec: Spec) -> Container:
        wanted = namespaces(spec)
        spawn.flags_for(wanted)
        parked = self._suitable(request, spec, wanted)
        if parked is not None and parked.shares_network:
            spec = in_shared_network(spec)
        group = parked.group if parked else self._new_group()
        container = Container(self._loop, request.container_id, group, wanted)
        try:
            container.users = users.find(spec, wanted, self._containers, self._leave_network)
            resources = (spec.get("linux") or {}).get("resources") or {}
            group.set(resources)
            _limit_devices(group, resources.get("devices") or [], parked)
            for storage in request.storages:
                container.storages.append(self._storages.mount(storage))
            self._hand_over_root()
            plan = self._plan(request, spec, container, parked)
            if parked is not None:
                container.held = parked.namespaces
                container.init = self._wake(parked, plan)
            else:
                container.init = self._fork_init(plan, container)
        except BaseException:
            self._give_up(container, parked)
            raise
        finally:
            if container.users is not None:
                container.users.close()
        return container

    def _leave_network(self, namespace: int) -> None:
        """Move the sandbox's network; who is parked in the old one fits no container any more."""
        self._discard_parked()
        self._move_network(namespace)

    def _suitable(
        self, request: CreateContainerRequest, spec: Spec, wanted: dict[str, str]
    ) -> prepared.Parked | None:
        """The parked child, if this container can grow from it; one with another root is ended."""
        fits = self._parked is not None and prepared.fits(
            wanted, bounding_set(spec), shares_network=self._parked.shares_network
        )
        rooted = self._rooted
        if rooted is None:
            return self._parked if fits else None
        if (
            fits and not rooted.settled and root_part(spec) == rooted.part
            and tuple(s.encode() for s in request.storages) == rooted.storages
        ):  # fmt: skip
            return self._parked
        self._discard_parked()
        return None

    def _hand_over_root(self) -> None:
        """What a prepared root stands on is the container's from now on, or nobody's."""
        rooted, self._rooted = self._rooted, None
        if rooted is None:
            return
        for fd in rooted.files.fds:
            os.close(fd)
        files.remove(rooted.files.directory)
        for point in reversed(rooted.points):
            self._storages.release(point)

    def _give_up(self, container: Container, parked: prepared.Parked | None) -> None:
        """Undo what was made for a container that will not be."""
        if parked is None or parked is not self._parked:
            self.destroy(container)
            return
        self._discard_parked()  # its control group may hold limits now
        self._release(container)

    def _discard_parked(self) -> None:
        parked, self._parked = self._parked, None
        process, self._settled = self._settled, None
        if process is not None:
            process.close()
            scheduling.give_way()  # as before it was settled
        self._hand_over_root()
        if parked is not None:
            for fd in (parked.devices_fd, *parked.namespaces):
                os.close(fd)
            parked.pipes.close()  # it leaves when there is no plan for it
            self._loop.on_exit(parked.pid, lambda _: parked.group.remove())

    def _plan(
        self, request: CreateContainerRequest, spec: Spec, container: Container,
        parked: prepared.Parked | None,
    ) -> Spec:  # fmt: skip
        seccomp, flags = filter_of(request.seccomp)
        process: Spec = spec["process"]
        own_root = _own_root(request, spec)
        directory = self._directory(container.group)
        container.directory = directory if request.files else ""
        contents, sources = files.write(request.files, directory, own_root=own_root)
        return {
            "spec": spec, "process": process, "seccomp": seccomp, "seccomp_flags": flags,
            "streams": (request.stdin, request.stdout, request.stderr), "init": request.init,
            "cgroup": container.group.path, "files": sources, "contents": contents,
            "mounted": own_root, "joins": self._joins(container.kinds, parked),
        }  # fmt: skip

    def _joins(self, wanted: dict[str, str], parked: prepared.Parked | None) -> dict[str, str]:
        """The namespaces to enter: kind -> path below the agent's /proc."""
        found = {
            kind: self.namespace_path(kind, path) for kind, path in wanted.items()
            if path and kind not in ("pid", "user")
        }  # fmt: skip
        if parked is not None and parked.shares_network and _in_sandbox_network(wanted):
            del found["network"]
        if parked is not None:
            for kind in prepared.PRIVATE:
                if kind not in wanted:
                    found[kind] = ns.path_of(kind, os.getpid())
        return found

    def namespace_path(self, kind: str, path: str) -> str:
        """Where a namespace is: of another container by its id, or a path in the guest."""
        if kind not in ns.KINDS:
            raise InvalidInput(f'unknown kind of namespace "{kind}"')
        if _in_sandbox_network({kind: path}):
            return ns.path_of(kind, os.getpid())
        if not path.startswith(CONTAINER_PREFIX):
            return path
        other = self._containers.get(path[len(CONTAINER_PREFIX) :])
        if other is None or other.init.exited.value is not None:
            raise WrongState(f'no running container for the namespace "{path}"')
        return ns.path_of(kind, other.init.pid)

    def _wake(self, parked: prepared.Parked, plan: Spec) -> Process:
        self._parked = None
        os.close(parked.devices_fd)
        pipes = parked.pipes
        wires.send_plan(pipes.go, plan)
        terminal = bool(plan["process"].get("terminal"))
        for number, wanted in enumerate(plan["streams"]):
            if terminal or not wanted:
                pipes.drop(number)
        return Process(self._loop, "", parked.pid, pipes, terminal=terminal, alone=True)

    def _fork_init(self, plan: Spec, container: Container) -> Process:
        pipes, wanted = wires.Pipes.of(plan), container.kinds
        clock = plan["spec"]["linux"].get("timeOffsets") or {} if wanted.get("time") == "" else None
        pid_path = self.namespace_path("pid", wanted["pid"]) if wanted.get("pid") else ""
        if container.users is not None:
            self._make_room(plan, container)
            container.users.own_streams(pipes.child_stdio)
            plan.update({"users": True, "pid": pid_path, "clock": clock})

        def child() -> Child:
            return Child(plan, pipes.child_go, pipes.child_report, pipes.child_stdio)

        def fork(keep: list[int]) -> int:
            flags, own = spawn.flags_for(wanted), container.users
            if own is not None:
                return spawn.fork_across(own.fd, flags, child, pipes.child_report, keep)
            return spawn.fork(
                flags, lambda: child().create(), pipes.child_report, keep,
                pid_namespace=pid_path, clock_offsets=clock,
            )  # fmt: skip

        pid = self._fork(pipes, fork)
        return self._process("", pid, pipes, plan, alone=wanted.get("pid") == "")

    def _make_room(self, plan: Spec, container: Container) -> None:
        """See to what a container in a user namespace cannot do itself."""
        spec, own = plan["spec"], container.users
        assert own is not None
        own.own_group(container.group, spec)
        entries = (spec.get("linux") or {}).get("devices") or []
        if entries:
            container.nodes = f"{self._directory(container.group)}-devices"
        plan["nodes"] = own.nodes(entries, container.nodes)
        sources = [str(m["source"]) for m in spec.get("mounts") or [] if m.get("source")]
        users.let_through([spec["root"]["path"], *sources, *plan["nodes"]], self._run)

    @staticmethod
    def _fork(pipes: wires.Pipes, fork: Callable[[list[int]], int]) -> int:
        try:
            pid = fork(pipes.child_ends())
        except BaseException:
            pipes.close_child_ends()
            pipes.close()
            raise
        pipes.close_child_ends()
        return pid

    def _process(
        self, exec_id: str, pid: int, pipes: wires.Pipes, plan: Spec, *, alone: bool
    ) -> Process:
        terminal = bool(plan["process"].get("terminal"))
        return Process(self._loop, exec_id, pid, pipes, terminal=terminal, alone=alone)

    def destroy(self, container: Container) -> None:
        """Remove all that was made for a container whose processes ended or must end now."""
        container.close()
        _remove_group(container.group)
        self._release(container)

    def update_tree(self, request: UpdateTreeRequest) -> None:
        """Change the files of a storage that containers have."""
        self._storages.update(request.mount_point, request.nodes)

    def _release(self, container: Container) -> None:
        for point in reversed(container.storages):
            self._storages.release(point)
        container.storages.clear()
        files.remove(container.directory)
        if container.nodes:
            Storages.unmount(container.nodes)


def _in_sandbox_network(wanted: dict[str, str]) -> bool:
    return wanted.get("network") == SANDBOX_NETWORK


def _own_root(request: CreateContainerRequest, spec: Spec) -> bool:
    """Whether the root is an overlay made for this container alone, nothing over its files.

    Small files can then be written into it; elsewhere they are bound over what is there.
    """
    root = spec["root"]["path"]
    overlay = any(s.driver == "overlay" and s.mount_point == root for s in request.storages)
    covered = [m["destination"].rstrip("/") + "/" for m in spec.get("mounts") or []]
    return overlay and not any(f"{f.path}/".startswith(c) for f in request.files for c in covered)


def _limit_devices(
    group: Group, rules: list[Spec], parked: prepared.Parked | None
) -> None:
    """Let the group use the devices that the rules allow, and no others."""
    if parked is not None and rules == staged.DOCKER_RULES:
        return
    program = devicefilter.compile_rules(rules)
    if parked is None:
        os.close(devicefilter.attach(group.path, program))
    elif program != parked.devices:
        os.close(devicefilter.attach(group.path, program, parked.devices_fd))


def _remove_group(group: Group) -> None:
    """Remove a control group; what is left in it is killed and takes a moment to go."""
    import time

    for _ in range(_TRIES):
        try:
            group.remove()
            return
        except OSError:
            group.kill()
            time.sleep(0.001)
