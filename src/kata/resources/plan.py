"""What a sandbox may use of the host: limits in, files of control groups out.

The one rule: pure. Which files there are to write depends only on the limits and on the version.

A sandbox's group holds the VMM and its helpers; the guest's memory is theirs. Limits of a
container within the sandbox are the guest's affair. Sources: cgroup-v1/{memory,cpusets,pids}.rst,
scheduler/sched-bwc.rst, cgroup-v2.rst; runtime-spec config-linux.md.
"""

from __future__ import annotations

from kata.errors import InvalidInput
from kata.wire.record import record, replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

MEMORY_OVERHEAD = 160 << 20  # bytes: the VMM beside the guest's memory, its helpers, their caches
_PERIOD = 100_000  # microseconds
_MIN_QUOTA = 1000  # the kernel takes no less
_ZERO_COUNTS = ("idle", "burst")  # fields of linux.resources.cpu in which 0 says something
_MAX_TASKS = 4096  # a VMM and a file server have some tens


@record
class Limits:
    """What is limited; 0 or empty: not. Bytes, microseconds; ``cpu_shares`` as version 1 has it.

    A ``cpu_quota`` below zero lifts one that is there.
    """

    memory: int = 0
    cpu_quota: int = 0
    cpu_period: int = _PERIOD
    cpu_shares: int = 0
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    tasks: int = _MAX_TASKS


@record
class Write:
    """A file of the group to write; ``controller`` must be there for it."""

    controller: str
    file: str
    value: str


def memory_limit(resources: Mapping[str, Any]) -> int:
    """The memory that a container with these resources (OCI's linux.resources) may use, bytes.

    0: no limit, and so no promise.
    """
    return max(int((resources.get("memory") or {}).get("limit") or 0), 0)


def for_machine(memory_mib: int, cpus: float = 0.0) -> Limits:
    """The limits of a machine with so much memory, whose threads may use ``cpus`` processors.

    Raises ``InvalidInput``.
    """
    if memory_mib <= 0 or cpus < 0:
        raise InvalidInput(f"limits of {memory_mib} MiB and {cpus:g} processors", why="below zero")
    quota = max(_MIN_QUOTA, int(cpus * _PERIOD)) if cpus else 0
    return Limits(memory=(memory_mib << 20) + MEMORY_OVERHEAD, cpu_quota=quota)


def for_engine(memory_mib: int, resources: dict[str, Any], *, started: bool) -> Limits:
    """The limits of a machine that an engine asked for with OCI's linux.resources.

    The quota of processor time is the container's: it holds from its start, for what comes before
    is the guest's. The guest has the other limits; here the machine's own size bounds them.
    """
    cpu = resources.get("cpu") or {}
    quota = cpu.get("quota") or 0
    return replace(
        for_machine(memory_mib),
        cpu_quota=(max(_MIN_QUOTA, quota) if quota > 0 else quota) if started else 0,
        cpu_period=cpu.get("period") or _PERIOD,
        cpu_shares=cpu.get("shares") or 0,
        cpuset_cpus=cpu.get("cpus") or "",
        cpuset_mems=cpu.get("mems") or "",
    )


def changed(resources: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    """``linux.resources`` after an update, as far as processors go: what it leaves out stays.

    Engines write 0 and empty texts for what they leave out.
    """
    said = {
        name: value for name, value in (change.get("cpu") or {}).items()
        if value or (value is not None and name in _ZERO_COUNTS)
    }  # fmt: skip
    return {**resources, "cpu": {**(resources.get("cpu") or {}), **said}}


def place(cgroups_path: str, container_id: str) -> tuple[str, str]:
    """Where the engine wants the group: the path of its parent, and its name.

    ``..`` leads up to the root of the hierarchy and no further, as runc has it.
    """
    parts: list[str] = []
    for part in cgroups_path.split("/"):
        if part == "..":
            del parts[-1:]
        elif part not in ("", "."):
            parts.append(part)
    if not parts:
        return "kata", container_id
    return "/".join(parts[:-1]), parts[-1]


def controllers(limits: Limits) -> tuple[str, ...]:
    """The controllers that ``limits`` need, by version 2's names."""
    wanted = (
        ("memory", limits.memory),
        ("cpu", limits.cpu_quota or limits.cpu_shares),
        ("cpuset", limits.cpuset_cpus or limits.cpuset_mems),
        ("pids", limits.tasks),
    )
    return tuple(name for name, needed in wanted if needed)


def plan(limits: Limits, version: int) -> tuple[Write, ...]:
    """The files to write, in order, for version 1 or 2."""
    rows = _v2(limits) if version == 2 else _v1(limits)
    return tuple(Write(*row) for row in rows)


def _v1(limits: Limits) -> list[tuple[str, str, str]]:
    rows = []
    if limits.memory:
        rows.append(("memory", "memory.limit_in_bytes", str(limits.memory)))
    if limits.cpu_shares:
        rows.append(("cpu", "cpu.shares", str(limits.cpu_shares)))
    if limits.cpu_quota:
        rows.append(("cpu", "cpu.cfs_period_us", str(limits.cpu_period)))
        rows.append(("cpu", "cpu.cfs_quota_us", str(max(-1, limits.cpu_quota))))
    return rows + _same(limits)


def _v2(limits: Limits) -> list[tuple[str, str, str]]:
    rows = []
    if limits.memory:
        rows.append(("memory", "memory.max", str(limits.memory)))
        # the VMM without its file server, or the other way round, is no sandbox
        rows.append(("memory", "memory.oom.group", "1"))
    if limits.cpu_shares:
        rows.append(("cpu", "cpu.weight", str(weight_of_shares(limits.cpu_shares))))
    if limits.cpu_quota:
        bandwidth = "max" if limits.cpu_quota < 0 else str(limits.cpu_quota)
        rows.append(("cpu", "cpu.max", f"{bandwidth} {limits.cpu_period}"))
    return rows + _same(limits)


def _same(limits: Limits) -> list[tuple[str, str, str]]:
    """Files that both versions have."""
    rows = []
    if limits.cpuset_cpus:
        rows.append(("cpuset", "cpuset.cpus", limits.cpuset_cpus))
    if limits.cpuset_mems:
        rows.append(("cpuset", "cpuset.mems", limits.cpuset_mems))
    if limits.tasks:
        rows.append(("pids", "pids.max", str(limits.tasks)))
    return rows


def weight_of_shares(shares: int) -> int:
    """Version 1's cpu.shares (2 to 262144) as version 2's cpu.weight, as runc does it."""
    return 1 + (min(max(shares, 2), 262144) - 2) * 9999 // 262142
