"""Making containers and their processes: from a request to a forked child, and back to nothing.

The rule: what fails half way is undone before the error is passed on.
"""

from __future__ import annotations

import os
from select import EPOLLIN

from kata.errors import GuestError, InvalidInput, WrongState
from kata.guest import pipes as wires
from kata.guest import prepared, settled, spawn, staged
from kata.guest.child import Child
from kata.guest.container import Container
from kata.guest.process import Outcome, Process
from kata.guest.spec import (
    MALFORMED,
    bounding_set,
    document,
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
    from collections.abc import Callable
    from typing import Any

    from kata.guest.loop import Loop
    from kata.guest.spec import Spec
    from kata.wire.agent_api import (
        CreateContainerRequest,
        ExecRequest,
        PrepareRequest,
        Program,
        Seccomp,
    )

_MAX_FILES, _MAX_FILE = 256, 1 << 20
_TRIES = 200  # for a control group to become empty once everything in it was killed


class Launcher:
    """Makes containers and processes, keeps the parked child."""

    def __init__(
        self, loop: Loop, run: str, cgroup: str, containers: dict[str, Container]
    ) -> None:
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

    def root(self, request: PrepareRequest) -> Outcome:
        """Let the parked child make its root; the outcome is there when it waits again."""
        parked = self._parked
        if parked is None or self._rooted is not None:
            raise WrongState("there is no parked container without a root")
        spec = document(request.spec, "the container's specification")
        points = tuple(self._storages.mount(storage) for storage in request.storages)
        seccomp, flags = _filter_of(request.seccomp)
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
                process.watch_output()
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
        process.begin(wires.packed(told), stdin=request.stdin)
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
                container.init = self._fork_init(plan, wanted)
        except BaseException:
            self._give_up(container, parked)
            raise
        return container

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
        _remove_directory(rooted.files.directory)
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
        seccomp, flags = _filter_of(request.seccomp)
        process: Spec = spec["process"]
        contents, sources = self._write_files(request, container, _own_root(request, spec))
        return {
            "spec": spec, "process": process, "seccomp": seccomp, "seccomp_flags": flags,
            "streams": (request.stdin, request.stdout, request.stderr), "init": request.init,
            "cgroup": container.group.path, "files": sources, "contents": contents,
            "mounted": _own_root(request, spec), "joins": self._joins(container.kinds, parked),
        }  # fmt: skip

    def _joins(self, wanted: dict[str, str], parked: prepared.Parked | None) -> dict[str, str]:
        """The namespaces to enter: kind -> path below the agent's /proc."""
        found = {
            kind: self.namespace_path(kind, path) for kind, path in wanted.items()
            if path and kind != "pid"
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

    def _write_files(
        self, request: CreateContainerRequest, container: Container, own_root: bool  # noqa: FBT001
    ) -> tuple[list[tuple[str, bytes, int]], list[tuple[str, str, bool]]]:
        """Files to write into a root that is the container's own, and files to bind over others'.

        The first are (path, content, mode), the second (path, source, read-only).
        """
        if len(request.files) > _MAX_FILES:
            raise InvalidInput(f"{len(request.files)} files, the limit is {_MAX_FILES}")
        contents: list[tuple[str, bytes, int]] = []
        found: list[tuple[str, str, bool]] = []
        for number, file in enumerate(request.files):
            if len(file.content) > _MAX_FILE or not file.path.startswith("/"):
                raise InvalidInput(f'file "{file.path}" is too large or has no absolute path')
            if own_root and not file.readonly:
                contents.append((file.path, file.content, file.mode & 0o7777 or 0o644))
                continue
            if not container.directory:
                container.directory = self._directory(container.group)
                os.mkdir(container.directory, 0o700)
            source = f"{container.directory}/{number}"
            fd = os.open(source, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                os.write(fd, file.content)
                os.fchmod(fd, file.mode & 0o7777 or 0o644)
            finally:
                os.close(fd)
            found.append((file.path, source, file.readonly))
        return contents, found

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

    def _fork_init(self, plan: Spec, wanted: dict[str, str]) -> Process:
        pipes = _pipes_for(plan)
        clock = plan["spec"]["linux"].get("timeOffsets") or {} if wanted.get("time") == "" else None
        pid_path = wanted.get("pid") or ""

        def body() -> None:
            Child(plan, pipes.child_go, pipes.child_report, pipes.child_stdio).create()

        pid = self._fork(
            pipes, spawn.flags_for(wanted), body,
            pid_namespace=self.namespace_path("pid", pid_path) if pid_path else "",
            clock_offsets=clock,
        )  # fmt: skip
        return self._process("", pid, pipes, plan, alone=wanted.get("pid") == "")

    def exec(self, container: Container, request: ExecRequest) -> Process:
        """Fork one more process of a running container."""
        process = document(request.process, "the process")
        if not isinstance(process.get("args"), list):
            raise InvalidInput("process.args is missing")
        seccomp, flags = _filter_of(request.seccomp)
        plan: Spec = {
            "process": process, "seccomp": seccomp, "seccomp_flags": flags, "init": False,
            "streams": (request.stdin, request.stdout, request.stderr),
            "cgroup": container.group.path,
        }  # fmt: skip
        pipes = _pipes_for(plan)
        target = container.init.pid
        pidfd = os.pidfd_open(target)
        kinds = container.joined_kinds()

        def body() -> None:
            child = Child(plan, pipes.child_go, pipes.child_report, pipes.child_stdio)
            child.exec(pidfd, kinds)

        try:
            path = ns.path_of("pid", target) if "pid" in container.kinds else ""
            pid = self._fork(pipes, 0, body, pid_namespace=path, keep=[pidfd])
        finally:
            os.close(pidfd)
        return self._process(request.exec_id, pid, pipes, plan, alone=False)

    def _fork(self, pipes: wires.Pipes, flags: int, body: Any, **more: Any) -> int:
        keep = [*pipes.child_ends(), *more.pop("keep", [])]
        try:
            pid = spawn.fork(flags, body, pipes.child_report, keep, **more)
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

    def _release(self, container: Container) -> None:
        for point in reversed(container.storages):
            self._storages.release(point)
        container.storages.clear()
        _remove_directory(container.directory)


def _remove_directory(path: str) -> None:
    """Remove a container's files, if it has any."""
    if path:
        for name in os.listdir(path):
            os.unlink(f"{path}/{name}")
        os.rmdir(path)


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


def _pipes_for(plan: Spec) -> wires.Pipes:
    stdin, stdout, stderr = plan["streams"]
    if plan["process"].get("terminal"):
        stdin = stdout = stderr = False
    return wires.Pipes(stdin, stdout, stderr)


def _filter_of(seccomp: Seccomp | None) -> tuple[bytes, int]:
    if seccomp is None:
        return b"", 0
    if len(seccomp.bpf) % 8 or not 0 < len(seccomp.bpf) <= 4096 * 8:
        raise InvalidInput("the seccomp filter is malformed", why=f"{len(seccomp.bpf)} bytes")
    return seccomp.bpf, seccomp.flags


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
