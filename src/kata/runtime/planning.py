"""What the guest is told of a container's files, and whether a template can know it beforehand.

Pure. The rule: a container whose root was made in a template gets exactly the configuration that
the root was made of; what differs from container to container is not part of it.
"""

from __future__ import annotations

import os

from kata.oci.defaults import DEFAULT_CAPABILITIES, container_spec
from kata.storage import plan as storage
from kata.wire import quickjson
from kata.wire.agent_api import (
    SANDBOX_NETWORK,
    CreateContainerRequest,
    File,
    PrepareRequest,
    Program,
    Seccomp,
)
from kata.wire.record import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from kata.runtime.request import RunRequest
    from kata.storage.plan import Directory, Plan, Volume

# the first container's directory in the guest: not its id, which no template can know
FIRST = "first"
_DEFAULT_SHM = 64 << 20


def storage_plan(
    rootfs: tuple[str, ...] | Directory, volumes: Iterable[Volume], slots: int
) -> Plan:
    """The plan of the first container of a sandbox."""
    return storage.plan(FIRST, rootfs, volumes, storage.Limits(wired_slots=slots))


def specification(request: RunRequest, plan: Plan) -> dict[str, Any]:
    """The OCI configuration that the guest gets."""
    spec = container_spec(replace(request.container, root=plan.root))
    volumes = {m["destination"]: m for m in plan.mounts}
    spec["mounts"] = [volumes.get(m["destination"], m) for m in spec["mounts"]]
    if request.domainname:
        spec["domainname"] = request.domainname
    return spec


def in_sandbox_network(spec: dict[str, Any]) -> dict[str, Any]:
    """The same in the sandbox's network, where the half-made container of a ready machine waits.

    There is no card in sight in it once ``UpdateNetwork`` has named none.
    """
    listed = [
        {**entry, "path": SANDBOX_NETWORK} if entry["type"] == "network" else entry
        for entry in spec["linux"]["namespaces"]
    ]
    return {**spec, "linux": {**spec["linux"], "namespaces": listed}}


def is_usual(request: RunRequest) -> bool:
    """Whether other containers of the image will have the same root and mounts."""
    wanted = request.container
    if not request.layers or wanted.volumes or wanted.tmpfs or wanted.readonly or wanted.sysctls:
        return False
    capabilities = specification_capabilities(request)
    return wanted.shm_size == _DEFAULT_SHM and capabilities <= set(DEFAULT_CAPABILITIES)


def specification_capabilities(request: RunRequest) -> set[str]:
    """The capabilities the container may have."""
    from kata.oci.defaults import tweaked_capabilities

    return set(tweaked_capabilities(request.container.cap_add, request.container.cap_drop))


def is_settled(request: RunRequest) -> bool:
    """Whether the process, too, is like that of most containers of the image, to be made ready."""
    wanted, process = request.container, request.container.process
    peculiar = (
        process.terminal, process.rlimits, process.no_new_privileges, process.oom_score_adj,
        process.umask is not None, wanted.cap_add, wanted.cap_drop, request.seccomp,
        request.init, request.domainname,
    )  # fmt: skip
    return not any(peculiar)


def preparation(
    request: RunRequest, slots: int, seccomp: Seccomp | None
) -> tuple[str, PrepareRequest]:
    """What the agent makes in a template for such containers, and a name for exactly that.

    ``seccomp`` is the filter of a process that is settled.
    """
    from kata.wire.digest import sha256

    plan = storage_plan(request.layers, (), slots)
    spec = specification(request, plan)
    linux = {k: v for k, v in spec["linux"].items() if k not in ("resources", "seccomp")}
    about = {"root": spec["root"], "mounts": spec["mounts"], "linux": linux}
    key: dict[str, object] = {**about, "layers": request.layers}
    files: list[str] = []
    if is_settled(request):
        about["process"] = spec["process"]
        files = [path for path, _ in request.files]
        own = {k: v for k, v in spec["process"].items() if k not in ("args", "env")}
        key |= {"process": own, "files": files, "seccomp": seccomp.bpf.hex() if seccomp else ""}
    return str(sha256(quickjson.dumps(key).encode()).hexdigest()[:16]), PrepareRequest(
        storages=list(plan.storages), spec=quickjson.dumps(about).encode(),
        seccomp=seccomp, files=files,
    )  # fmt: skip


def order(
    request: RunRequest, plan: Plan, spec: dict[str, Any], seccomp: Seccomp | None, *,
    settled: bool,
) -> CreateContainerRequest:  # fmt: skip
    """What the agent is asked: all of a container, or what one that is settled still lacks."""
    wanted = CreateContainerRequest(
        container_id=request.id,
        files=[File(path=p, content=c, mode=0o644) for p, c in request.files],
        stdin=request.stdin, stdout=True, stderr=not request.container.process.terminal,
    )  # fmt: skip
    if settled:
        process = spec["process"]
        limits = {k: v for k, v in spec["linux"]["resources"].items() if k != "devices"}
        wanted.program = Program(
            args=_ended(process["args"]), env=_ended(process["env"]),
            resources=quickjson.dumps(limits).encode() if limits else b"",
        )  # fmt: skip
        return wanted
    wanted.spec = quickjson.dumps(spec).encode()
    wanted.storages, wanted.seccomp, wanted.init = list(plan.storages), seccomp, request.init
    return wanted


def _ended(words: list[str]) -> bytes:
    return b"".join(os.fsencode(word) + b"\0" for word in words)
