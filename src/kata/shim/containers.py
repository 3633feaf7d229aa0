"""A container of containerd's as the core keeps it: from the bundle to its state."""

from __future__ import annotations

import os
import time

from kata.errors import HostError
from kata.oci.spec import parse
from kata.runtime.store import ContainerState, new_id
from kata.shim.bundle import store_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from kata.shim.order import Order

    Spec = dict[str, Any]


def read_spec(bundle: str) -> Spec:
    """The checked config.json of a bundle. Raises ``HostError``, ``InvalidSpec``."""
    path = f"{bundle}/config.json"
    try:
        with open(path, "rb") as file:
            return parse(file.read())
    except OSError as error:
        raise HostError(f'cannot read "{path}"', why=error.strerror or "") from None


def root_of(spec: Spec, bundle: str) -> str:
    """The directory of its root file system."""
    return os.path.normpath(os.path.join(bundle, spec["root"]["path"]))


def new_state(order: Order, spec: Spec, bundle: str, *, sandbox: str = "") -> ContainerState:
    """What is to be kept of a container. Raises ``InvalidInput`` for a bad cgroupsPath."""
    group, slice_ = _group(spec, order.id)
    return ContainerState(
        id=new_id(), name=store_name(order), command=tuple(spec["process"]["args"]),
        created_ns=time.time_ns(), terminal=bool(spec["process"].get("terminal")), bundle=bundle,
        rootfs=root_of(spec, bundle), sandbox=sandbox, cgroup=group, systemd_slice=slice_,
        annotations=tuple((spec.get("annotations") or {}).items()),
    )  # fmt: skip


def _group(spec: Spec, container_id: str) -> tuple[str, str]:
    """Where the control group is, and systemd's slice if systemd makes it."""
    path = (spec.get("linux") or {}).get("cgroupsPath") or ""
    if path.count(":") == 2 and "/" not in path:
        from kata.resources import systemd

        systemd.require()
        scope = systemd.unit(path, container_id)
        parent = systemd.slice_path(scope.slice)
        return (f"{parent}/{scope.name}" if parent else scope.name), scope.slice
    from kata.resources.plan import place

    return "/".join(filter(None, place(path, container_id))), ""
