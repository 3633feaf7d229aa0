"""What the guest is told of a container's files, and whether a template can know it beforehand.

Pure. The rule: a container whose root was made in a template gets exactly the configuration that
the root was made of; what differs from container to container is not part of it.
"""

from __future__ import annotations

from kata.oci.defaults import DEFAULT_CAPABILITIES, container_spec
from kata.storage import plan as storage
from kata.wire import quickjson
from kata.wire.agent_api import PrepareRequest
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


def preparation(request: RunRequest, slots: int) -> tuple[str, PrepareRequest]:
    """What the agent makes in a template for such containers, and a name for exactly that."""
    from kata.wire.digest import sha256

    plan = storage_plan(request.layers, (), slots)
    spec = specification(request, plan)
    linux = {k: v for k, v in spec["linux"].items() if k not in ("resources", "seccomp")}
    about = {"root": spec["root"], "mounts": spec["mounts"], "linux": linux}
    text = quickjson.dumps({**about, "layers": request.layers}).encode()
    return str(sha256(text).hexdigest()[:16]), PrepareRequest(
        storages=list(plan.storages), spec=quickjson.dumps(about).encode()
    )
