"""A container that an engine describes by a bundle: files to share, and what the agent is asked."""

from __future__ import annotations

import os

from kata.errors import InvalidInput, InvalidSpec
from kata.linux.namespaces import new_network
from kata.oci.spec import namespaces
from kata.runtime import bundle as bundles
from kata.runtime.workload import exec_request, set_terminal
from kata.storage import plan as storage
from kata.storage.sources import pin, version
from kata.wire import quickjson
from kata.wire.agent_api import CreateContainerRequest
from kata.wire.record import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator
    from typing import Any

    from kata.runtime import control_api
    from kata.runtime.store import ContainerState
    from kata.storage.plan import Plan
    from kata.storage.sources import Source
    from kata.wire.agent_api import ExecRequest, Node, Seccomp


class BundleWorkload:
    """A container that an engine describes: its bundle's config.json, checked before."""

    layers: tuple[str, ...] = ()
    first_slot = 0
    engine = True
    deferred = False

    def __init__(
        self, state: ContainerState, spec: dict[str, Any], data_root: str, network: int = -1
    ) -> None:
        self.network = network
        self._state = state
        self.id = state.id
        self.guest_name = state.id
        self.spec = spec
        self.bundle = state.bundle
        self.streams: frozenset[int] = frozenset()  # the standard streams that are not /dev/null
        self.owner: Callable[[str, str], str] = _nobody
        self.hostname = spec.get("hostname") or os.uname().nodename  # as a new namespace has it
        parent, _, name = state.cgroup.rpartition("/")
        self.group = parent, name
        self.systemd_slice = state.systemd_slice
        self.resolv_conf = bundles.resolv_conf(spec, state.bundle)
        self.resources: dict[str, Any] = (spec.get("linux") or {}).get("resources") or {}
        self.data_root = data_root
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
    ) -> tuple[tuple[str, ...] | storage.Directory | storage.Disk, list[storage.Volume],
               list[Source]]:  # fmt: skip
        """Raises what ``pin`` does, for the root file system and each bind mount."""
        root, pinned = self._root()
        kept = {}

        def look(path: str) -> tuple[bool, int]:
            if path not in kept:
                kept[path] = pin(path)
                pinned.append(kept[path])
            return kept[path].is_directory, _tmpfs_size(kept[path].fd)

        def overlay(mount: dict[str, Any]) -> str:
            from kata.storage import overlay

            name = f"{mount['destination']} (overlay {len(pinned)})"
            kept[name] = overlay.pin(overlay.of(mount.get("options") or ()), name)
            pinned.append(kept[name])
            return name

        self._mounts = bundles.sort_mounts(self.spec, self.bundle, look, overlay)
        volumes = [
            replace(v, source=kept[v.source].path, copy=copy)
            for v, copy in zip(
                self._mounts.volumes, _copies(self._mounts.volumes, kept), strict=True
            )
        ]
        return root, volumes, pinned

    def _root(self) -> tuple[storage.Directory | storage.Disk, list[Source]]:
        source = pin(self.rootfs)
        if not source.is_directory:
            source.close()
            raise InvalidInput(f'root file system "{self.rootfs}"', why="it is not a directory")
        return storage.Directory(source.path), [source]

    def create_request(
        self, plan: Plan, kernel_release: str, *, settled: bool  # noqa: ARG002 (as engines have it)
    ) -> CreateContainerRequest:
        """The engine's configuration, as the guest needs it."""
        from kata.runtime.seccomp import spec_filter

        assert self._mounts is not None
        seccomp = (self.spec.get("linux") or {}).get("seccomp")
        if seccomp and seccomp.get("defaultAction"):
            self._seccomp = spec_filter(seccomp, data_root=self.data_root)
        spaces = bundles.spaces(self.spec, self.owner)
        whole = self.spec if self.spec.get("hostname") else self._named(spaces)
        spec = bundles.guest_spec(whole, self._mounts, plan, spaces, self._state_document())
        return CreateContainerRequest(
            container_id=self.id,
            spec=quickjson.dumps(spec).encode(),
            storages=[*plan.storages, *bundles.memory_storages(self._mounts)],
            seccomp=self._seccomp,
            stdin=0 in self.streams,
            stdout=True,
            stderr=not self.terminal,
        )

    def _named(self, spaces: dict[str, str]) -> dict[str, Any]:
        """With the host's name in a new namespace: what a container of the host would see."""
        return {**self.spec, "hostname": self.hostname} if spaces.get("uts") == "" else self.spec

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
            if process.get("capabilities") is None:  # the container's, as runc has it
                process["capabilities"] = self.spec["process"].get("capabilities")
        else:
            from kata.oci.defaults import overlaid

            process = dict(self.spec["process"])
            process["args"] = list(wanted.arguments)
            environment = overlaid(tuple(process.get("env") or ()), tuple(wanted.environment))
            process["env"] = list(environment)
            process["cwd"] = wanted.cwd or process["cwd"]
            if wanted.user:
                process["user"] = {**(process.get("user") or {}), **_user(wanted.user)}
            set_terminal(process, wanted)
        return exec_request(process, self._seccomp, fds)


def open_network(spec: dict[str, Any]) -> int:
    """The network namespace of a sandbox, by descriptor: the engine's, or one of its own.

    Raises ``InvalidSpec`` for one that is not there.
    """
    path = namespaces(spec)["network"]
    if not path:
        return new_network()
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise InvalidSpec(
            "linux.namespaces", f'the network namespace "{path}": {error.strerror}'
        ) from None


def _user(text: str) -> dict[str, int]:
    """Numbers only: the container's files are an engine's, and not looked at for names."""
    uid, _, gid = text.partition(":")
    if not uid.isdecimal() or (gid and not gid.isdecimal()):
        raise InvalidInput(
            f'unknown user "{text}"', why="in a container of an engine users have numbers",
            hint="the engine's own exec knows names",
        )  # fmt: skip
    return {"uid": int(uid), **({"gid": int(gid)} if gid else {})}


def _nobody(kind: str, path: str) -> str:
    raise InvalidInput(f'the {kind} namespace "{path}"', why="of no container in this sandbox")


def _copies(
    volumes: Iterable[storage.Volume], kept: dict[str, Source]
) -> Iterator[tuple[Node, ...] | None]:
    """For each volume what is in it, if it is a configuration that the guest is to have a copy of.

    That is a directory with a link that is swapped, of which kubelet makes a few for each pod.
    """
    room = -1
    for volume in volumes:
        fd = kept[volume.source].fd
        if not storage.may_be_copied(volume) or not version(fd):
            yield None
            continue
        from kata.storage import tree

        room = tree.MOST_BYTES if room < 0 else room
        try:
            nodes = tree.read(fd, room)
        except (tree.TooMuch, OSError):
            yield None  # the share has it
        else:
            room -= tree.size(nodes)
            yield nodes


_TMPFS_MAGIC = 0x01021994  # statfs(2)


def _tmpfs_size(fd: int) -> int:
    """The size of the tmpfs that a descriptor is on; 0 if it is on something else."""
    from kata.linux.statfs import filesystem

    kind, size = filesystem(fd)
    return size if kind == _TMPFS_MAGIC else 0
