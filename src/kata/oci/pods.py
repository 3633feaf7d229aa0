"""Which virtual machine a container belongs to, as its engine's annotations say.

The one rule: pure. containerd's CRI plugin, CRI-O and Podman mark the first container of a pod and
name it in the others; a container without marks is alone. CRI-O by default (``drop_infra_ctr``)
makes no first container where the others do not need its process: they name it all the same.
Sources: containerd ``pkg/cri/annotations``, CRI-O ``pkg/annotations``, Podman ``pkg/annotations``.
"""

from __future__ import annotations

from kata.errors import InvalidSpec
from kata.wire.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

ALONE, SANDBOX, MEMBER = "alone", "sandbox", "member"
# what says which of the two it is, and what names the pod's first container, by engine
_KEYS = (
    ("io.kubernetes.cri.container-type", "io.kubernetes.cri.sandbox-id"),
    ("io.kubernetes.cri-o.ContainerType", "io.kubernetes.cri-o.SandboxID"),
)
_DROPPING = "io.kubernetes.cri-o.ContainerType"
_KINDS = {"sandbox": SANDBOX, "container": MEMBER, "podsandbox": SANDBOX}


@record
class Membership:
    """``kind`` is ALONE, SANDBOX or MEMBER; ``sandbox`` names the pod's first container.

    ``dropped``: the engine may have left that one out, and then whichever comes first is it.
    """

    kind: str
    sandbox: str = ""
    dropped: bool = False


def membership(container_id: str, annotations: Mapping[str, str]) -> Membership:
    """What a container is. Raises ``InvalidSpec`` for marks that contradict themselves."""
    for type_key, name_key in _KEYS:
        marked = annotations.get(type_key)
        sandbox = annotations.get(name_key, "")
        if marked is None:
            continue
        kind = _KINDS.get(marked)
        if kind is None:
            raise InvalidSpec(
                f'annotations["{type_key}"]', f'must be "sandbox" or "container", not "{marked}"'
            )
        if kind == SANDBOX:
            return Membership(SANDBOX, container_id)
        if not sandbox:
            raise InvalidSpec(
                f'annotations["{name_key}"]', f'is missing, and "{type_key}" says "container"'
            )
        return Membership(MEMBER, sandbox, type_key == _DROPPING)
    return Membership(ALONE, container_id)


@record
class Shape:
    """What a sandbox needs: processors (rounded up; 0: the default) and bytes (0: the default)."""

    cpus: int = 0
    memory: int = 0


_SIZING = (  # of CRI engines, in the sandbox's annotations: what its containers will need
    ("io.kubernetes.cri.sandbox-cpu-quota", "io.kubernetes.cri.sandbox-cpu-period",
     "io.kubernetes.cri.sandbox-memory"),
)  # fmt: skip


def sizing(spec: dict[str, Any]) -> Shape:
    """The shape of the machine for a container, or for the pod that it is the first of."""
    annotations = spec.get("annotations") or {}
    for quota_key, period_key, memory_key in _SIZING:
        if quota_key in annotations or memory_key in annotations:
            return Shape(
                _cpus(_number(annotations, quota_key), _number(annotations, period_key)),
                _number(annotations, memory_key),
            )
    resources = (spec.get("linux") or {}).get("resources") or {}
    cpu, memory = resources.get("cpu") or {}, resources.get("memory") or {}
    limit = memory.get("limit") or 0
    return Shape(_cpus(cpu.get("quota") or 0, cpu.get("period") or 0), max(limit, 0))


def _number(annotations: Mapping[str, str], key: str) -> int:
    text = annotations.get(key, "0")
    return int(text) if text.isdecimal() and text.isascii() else 0


def _cpus(quota: int, period: int) -> int:
    return -(-quota // (period or 100_000)) if quota > 0 else 0
