"""The container of ``kata run``: an image or a directory, with Docker's defaults."""

from __future__ import annotations

from kata.runtime.planning import FIRST, in_sandbox_network, order, specification
from kata.runtime.seccomp import container_filter
from kata.runtime.workload import exec_request, set_terminal
from kata.storage import plan as storage
from kata.storage.sources import pin
from kata.wire import quickjson

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection
    from typing import Any

    from kata.runtime import control_api
    from kata.runtime.request import RunRequest
    from kata.storage.plan import Plan
    from kata.storage.sources import Source
    from kata.wire.agent_api import CreateContainerRequest, ExecRequest, Seccomp


class RunWorkload:
    """The container of ``kata run``."""

    guest_name = FIRST
    engine = False
    deferred = False  # else it is of a machine that was ready: its files are brought there
    first_slot = 0
    resolv_conf = ""
    network = -1
    systemd_slice = ""
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

    def create_request(
        self, plan: Plan, kernel_release: str, *, settled: bool
    ) -> CreateContainerRequest:
        """Config, filter, mounts and files of the container, or what a settled one lacks."""
        request = self._request
        self._spec = specification(request, plan)
        if self.deferred:
            self._spec = in_sandbox_network(self._spec)
        self._seccomp = container_filter(
            request.seccomp, self._spec["process"]["capabilities"]["bounding"], kernel_release,
            data_root=self._data_root,
        )  # fmt: skip
        return order(request, plan, self._spec, self._seccomp, settled=settled)

    def specification(self) -> bytes:
        """The container's config.json, as the guest has it."""
        return quickjson.dumps(self._spec).encode()

    def exec_request(self, wanted: control_api.ExecRequest, fds: Collection[int]) -> ExecRequest:
        """The container's own process, changed as asked."""
        from kata.oci.defaults import overlaid
        from kata.oci.users import resolve

        process = dict(self._spec["process"])
        process["args"] = list(wanted.arguments)
        process["env"] = list(overlaid(tuple(process["env"]), tuple(wanted.environment)))
        process["cwd"] = wanted.cwd or process["cwd"]
        set_terminal(process, wanted)
        if wanted.user:
            user = resolve(wanted.user, self._request.passwd, self._request.group)
            process["user"] = {
                **process["user"], "uid": user.uid, "gid": user.gid,
                "additionalGids": [user.gid, *user.groups],
            }  # fmt: skip
        return exec_request(process, self._seccomp, fds)
