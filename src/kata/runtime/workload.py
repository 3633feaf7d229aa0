"""What is to run in a sandbox: one container's files and configuration, for host and guest.

Two sources, one shape: what ``kata run`` asks for (an image or a directory, Docker's defaults),
and an OCI bundle of an engine. The rule: a workload starts nothing and holds nothing open.
"""

from __future__ import annotations

import os

from kata.errors import InvalidInput
from kata.runtime import bundle as bundles
from kata.runtime.planning import FIRST, specification
from kata.runtime.seccomp import container_filter
from kata.storage import plan as storage
from kata.storage.sources import pin
from kata.wire import quickjson
from kata.wire.agent_api import CreateContainerRequest, ExecRequest, File

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from typing import Any, Protocol

    from kata.runtime import control_api
    from kata.runtime.request import RunRequest
    from kata.runtime.store import ContainerState
    from kata.storage.plan import Plan
    from kata.storage.sources import Source
    from kata.wire.agent_api import Seccomp

    class Workload(Protocol):
        """What a sandbox asks of a workload, in this order but for ``exec_request``."""

        id: str
        guest_name: str
        hostname: str
        layers: tuple[str, ...]
        engine: bool  # whether its control group and its state are an engine's
        group: tuple[str, str]  # parent and name of the control group on the host
        resources: dict[str, Any]  # OCI's linux.resources

        def sources(
            self,
        ) -> tuple[tuple[str, ...] | storage.Directory, list[storage.Volume], list[Source]]:
            """Root file system, volumes, and what they name on the host, pinned."""

        def create_request(self, plan: Plan, kernel_release: str) -> CreateContainerRequest:
            """What the agent is asked."""

        def exec_request(
            self, wanted: control_api.ExecRequest, fds: Collection[int]
        ) -> ExecRequest:
            """The agent's request for one more process."""


class RunWorkload:
    """The container of ``kata run``."""

    guest_name = FIRST
    engine = False
    resources: dict[str, Any] = {}  # the guest sees to them

    def __init__(self, request: RunRequest, data_root: str) -> None:
        self._request = request
        self._data_root = data_root
        self._spec: dict[str, Any] = {}
        self._seccomp: Seccomp | None = None
        self.id = request.id
        self.group = ("kata", request.id)
        self.logged = request.logged
        self.hostname = request.container.hostname
        self.layers = request.layers

    def sources(
        self,
    ) -> tuple[tuple[str, ...] | storage.Directory, list[storage.Volume], list[Source]]:
        """Raises what ``pin`` does; a directory that is missing is made, as Docker does."""
        request, pinned, volumes = self._request, [], []
        for wanted in request.container.volumes:
            source = pin(wanted.source, create=True)
            pinned.append(source)
            volumes.append(
                storage.Volume(
                    source.path, wanted.destination, wanted.readonly, source.is_directory,
                    (wanted.propagation,),
                )
            )  # fmt: skip
        rootfs: tuple[str, ...] | storage.Directory = request.layers
        if request.rootfs:
            pinned.append(pin(request.rootfs))
            rootfs = storage.Directory(pinned[-1].path)
        return rootfs, volumes, pinned

    def create_request(self, plan: Plan, kernel_release: str) -> CreateContainerRequest:
        """Config, filter, mounts and files of the container."""
        request = self._request
        self._spec = specification(request, plan)
        capabilities = self._spec["process"]["capabilities"]["bounding"]
        self._seccomp = container_filter(
            request.seccomp, capabilities, kernel_release, data_root=self._data_root
        )
        return CreateContainerRequest(
            container_id=self.id,
            spec=quickjson.dumps(self._spec).encode(),
            storages=list(plan.storages),
            files=[File(path=p, content=c, mode=0o644) for p, c in request.files],
            seccomp=self._seccomp,
            stdin=request.stdin,
            stdout=True,
            stderr=not request.container.process.terminal,
            init=request.init,
        )

    def exec_request(self, wanted: control_api.ExecRequest, fds: Collection[int]) -> ExecRequest:
        """The container's own process, changed as asked."""
        from kata.oci.defaults import overlaid
        from kata.oci.users import resolve

        process = dict(self._spec["process"])
        process["args"] = list(wanted.arguments)
        process["env"] = list(overlaid(tuple(process["env"]), tuple(wanted.environment)))
        process["cwd"] = wanted.cwd or process["cwd"]
        _set_terminal(process, wanted)
        if wanted.user:
            user = resolve(wanted.user, self._request.passwd, self._request.group)
            process["user"] = {
                **process["user"], "uid": user.uid, "gid": user.gid,
                "additionalGids": [user.gid, *user.groups],
            }  # fmt: skip
        return _exec_request(process, self._seccomp, fds)


class BundleWorkload:
    """A container that an engine describes: its bundle's config.json, checked before."""

    layers: tuple[str, ...] = ()
    engine = True

    def __init__(self, state: ContainerState, spec: dict[str, Any], data_root: str) -> None:
        self._state = state
        self.id = state.id
        self.guest_name = state.id
        self.spec = spec
        self.bundle = state.bundle
        self.streams: frozenset[int] = frozenset()  # the standard streams that are not /dev/null
        self.owner: Callable[[str, str], str] = _nobody
        self.hostname = spec.get("hostname") or ""
        parent, _, name = state.cgroup.rpartition("/")
        self.group = parent, name
        self.resources: dict[str, Any] = (spec.get("linux") or {}).get("resources") or {}
        self._data_root = data_root
        self._seccomp: Seccomp | None = None
        self._mounts: bundles.Mounts | None = None

    @property
    def terminal(self) -> bool:
        """Whether its process has a terminal."""
        return bool(self.spec["process"].get("terminal"))

    @property
    def rootfs(self) -> str:
        """The directory of the root file system on the host."""
        return os.path.normpath(os.path.join(self.bundle, self.spec["root"]["path"]))

    def sources(
        self,
    ) -> tuple[tuple[str, ...] | storage.Directory, list[storage.Volume], list[Source]]:
        """Raises what ``pin`` does, for the root file system and each bind mount."""
        pinned = [pin(self.rootfs)]
        if not pinned[0].is_directory:
            raise InvalidInput(f'root file system "{self.rootfs}"', why="it is not a directory")
        kept = {}

        def look(path: str) -> tuple[bool, int]:
            if path not in kept:
                kept[path] = pin(path)
                pinned.append(kept[path])
            return kept[path].is_directory, _tmpfs_size(kept[path].fd)

        self._mounts = bundles.sort_mounts(self.spec, self.bundle, look)
        volumes = [
            storage.Volume(
                kept[v.source].path, v.destination, v.readonly, v.is_directory, v.options
            )
            for v in self._mounts.volumes
        ]
        return storage.Directory(pinned[0].path), volumes, pinned

    def create_request(
        self, plan: Plan, kernel_release: str  # noqa: ARG002 (an engine's filter is for any)
    ) -> CreateContainerRequest:
        """The engine's configuration, as the guest needs it."""
        from kata.runtime.seccomp import spec_filter

        assert self._mounts is not None
        seccomp = (self.spec.get("linux") or {}).get("seccomp")
        if seccomp:
            self._seccomp = spec_filter(seccomp, data_root=self._data_root)
        spaces = bundles.spaces(self.spec, self.owner)
        spec = bundles.guest_spec(self.spec, self._mounts, plan, spaces, self._state_document())
        return CreateContainerRequest(
            container_id=self.id,
            spec=quickjson.dumps(spec).encode(),
            storages=[*plan.storages, *bundles.memory_storages(self._mounts)],
            seccomp=self._seccomp,
            stdin=0 in self.streams,
            stdout=True,
            stderr=not self.terminal,
        )

    def _state_document(self) -> dict[str, Any]:
        from kata.oci.state import CREATED, State, document

        return document(State(
            id=self._state.name, status=CREATED, bundle=self.bundle,
            annotations=self._state.annotations,
        ))  # fmt: skip

    def exec_request(self, wanted: control_api.ExecRequest, fds: Collection[int]) -> ExecRequest:
        """The process that the engine describes, or the container's changed as asked."""
        if wanted.process:
            process = quickjson.loads(wanted.process)
        else:
            from kata.oci.defaults import overlaid

            process = dict(self.spec["process"])
            process["args"] = list(wanted.arguments)
            environment = overlaid(tuple(process.get("env") or ()), tuple(wanted.environment))
            process["env"] = list(environment)
            process["cwd"] = wanted.cwd or process["cwd"]
            _set_terminal(process, wanted)
        return _exec_request(process, self._seccomp, fds)


def _nobody(kind: str, path: str) -> str:
    raise InvalidInput(f'the {kind} namespace "{path}"', why="of no container in this sandbox")


def _set_terminal(process: dict[str, Any], wanted: control_api.ExecRequest) -> None:
    process["terminal"] = wanted.terminal
    process.pop("consoleSize", None)
    if wanted.terminal and wanted.rows:
        process["consoleSize"] = {"height": wanted.rows, "width": wanted.columns}
    if wanted.terminal and not any(e.startswith("TERM=") for e in process["env"]):
        process["env"] = [*process["env"], "TERM=xterm"]


def _exec_request(
    process: dict[str, Any], seccomp: Seccomp | None, fds: Collection[int]
) -> ExecRequest:
    return ExecRequest(
        process=quickjson.dumps(process).encode(),
        seccomp=seccomp,
        stdin=0 in fds,
        stdout=1 in fds,
        stderr=2 in fds and not process.get("terminal"),
    )


_TMPFS_MAGIC = 0x01021994  # statfs(2)


def _tmpfs_size(fd: int) -> int:
    """The size of the tmpfs that a descriptor is on; 0 if it is on something else."""
    from kata.linux.statfs import filesystem

    kind, size = filesystem(fd)
    return size if kind == _TMPFS_MAGIC else 0
