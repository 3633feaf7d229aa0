"""An update of a container's share of the processors: what is the host's, what is the guest's.

The one rule: a quota is held twice, by the group of the virtual machine and by the container's in
the guest; both change, or neither. Numbers of processors and memory nodes are the host's alone.
"""

from __future__ import annotations

from kata.errors import InvalidInput
from kata.resources.plan import changed
from kata.runtime.bundle import guest_resources

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from kata.resources.group import Group
    from kata.resources.plan import Limits
    from kata.runtime.lifetime import Lifetime
    from kata.runtime.sandbox import Sandbox


def share(
    life: Lifetime, change: dict[str, Any], sandbox: Sandbox, *, first: bool
) -> dict[str, Any]:
    """Set what is the host's of an update (OCI's linux.resources); gives what is the guest's.

    Raises ``InvalidInput`` if this host has not the processors or memory nodes; all stays then.
    """
    if not change.get("cpu"):
        return change
    after = changed(life.resources, change)
    if first and after["cpu"] != life.resources.get("cpu"):
        sandbox.update(after)
    life.resources = after
    cpu = {**change["cpu"]}
    if cpu.get("quota") or cpu.get("period"):  # the guest's kernel has both in one file
        cpu |= {k: v for k, v in after["cpu"].items() if k in ("quota", "period")}
    return guest_resources({**change, "cpu": cpu})


def set_on_host(group: Group, before: Limits, after: Limits) -> None:
    """Change the group of a running sandbox. Raises ``InvalidInput`` as ``share`` does."""
    known = len(group.warnings)
    group.extend(after)
    refused = [w for w in group.warnings[known:] if "cpuset" in w]
    if refused:
        group.limit(before)
        raise InvalidInput("linux.resources.cpu cannot be had", why=refused[0])
