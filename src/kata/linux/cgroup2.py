"""Control groups, version 2: OCI resources as files to write, and the files of a group.

``plan`` is pure: resources in, ``(file, value)`` pairs out. The conversions from version 1's terms
are those of runc and crun (runtime-spec config-linux.md; kernel cgroup-v2.rst).
"""

from __future__ import annotations

import os

from kata.errors import InvalidInput

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

_READ, _MAX_READS = 16 << 10, 256
STAT_FILES = (
    "memory.current", "memory.max", "memory.peak", "memory.stat", "memory.events",
    "memory.swap.current", "memory.swap.max", "memory.pressure", "cpu.stat", "cpu.max",
    "cpu.weight", "cpu.pressure", "io.stat", "io.pressure", "pids.current", "pids.max",
    "cgroup.events",
    "hugetlb.2MB.current", "hugetlb.2MB.max", "hugetlb.2MB.events",
    "hugetlb.1GB.current", "hugetlb.1GB.max", "hugetlb.1GB.events", "rdma.current",
)  # fmt: skip


def plan(resources: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The files to write, in order, for OCI's linux.resources. Raises ``InvalidInput``."""
    try:
        return [
            *_memory(resources.get("memory") or {}),
            *_cpu(resources.get("cpu") or {}),
            *_pids(resources.get("pids") or {}),
            *_io(resources.get("blockIO") or {}),
            *_huge(resources.get("hugepageLimits") or []),
            *_rdma(resources.get("rdma") or {}),
            *_unified(resources.get("unified") or {}),
        ]
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise InvalidInput("linux.resources is malformed", why=str(error)) from None


def _limit(value: int) -> str:
    return "max" if value < 0 else str(int(value))


def _memory(memory: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    limit, swap = memory.get("limit") or 0, memory.get("swap") or 0
    if limit:
        yield "memory.max", _limit(limit)
    if swap:  # of both together; alone it is of a limit that is not known here, and of no swap
        if swap > 0 and limit > 0:
            if swap < limit:
                raise InvalidInput("memory and swap together are below the memory limit")
            yield "memory.swap.max", str(swap - limit)
        elif swap < 0:
            yield "memory.swap.max", "max"
        elif limit:
            raise InvalidInput("a swap limit needs a memory limit")
    if memory.get("reservation"):
        yield "memory.low", _limit(memory["reservation"])


def weight_of_shares(shares: int) -> int:
    """cgroup v1's cpu.shares (2 to 262144) as v2's cpu.weight (1 to 10000)."""
    shares = min(max(shares, 2), 262144)
    return 1 + (shares - 2) * 9999 // 262142


def _cpu(cpu: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if cpu.get("idle") is not None:
        yield "cpu.idle", str(int(cpu["idle"]))
    if cpu.get("shares") and not cpu.get("idle"):
        yield "cpu.weight", str(weight_of_shares(int(cpu["shares"])))
    quota, period = cpu.get("quota") or 0, cpu.get("period") or 0
    if quota or period:
        bandwidth = "max" if quota <= 0 else str(int(quota))
        yield "cpu.max", f"{bandwidth} {int(period) or 100000}"
    if cpu.get("burst") is not None:
        yield "cpu.max.burst", str(int(cpu["burst"]))
    if cpu.get("cpus"):
        yield "cpuset.cpus", str(cpu["cpus"])
    if cpu.get("mems"):
        yield "cpuset.mems", str(cpu["mems"])


def _pids(pids: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    limit = pids.get("limit")
    if limit is not None and limit != 0:
        yield "pids.max", _limit(limit)


def _io(block: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if block.get("weight"):
        yield "io.weight", f"default {_io_weight(block['weight'])}"
    for device in block.get("weightDevice") or []:
        if device.get("weight"):
            number = f"{int(device['major'])}:{int(device['minor'])}"
            yield "io.weight", f"{number} {_io_weight(device['weight'])}"
    for kind, key in (
        ("throttleReadBpsDevice", "rbps"), ("throttleWriteBpsDevice", "wbps"),
        ("throttleReadIOPSDevice", "riops"), ("throttleWriteIOPSDevice", "wiops"),
    ):  # fmt: skip
        for device in block.get(kind) or []:
            rate = int(device["rate"]) or "max"
            yield "io.max", f"{int(device['major'])}:{int(device['minor'])} {key}={rate}"


def _io_weight(weight: int) -> int:
    return 1 + (min(max(int(weight), 10), 1000) - 10) * 9999 // 990


def _huge(limits: list[Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    for limit in limits:
        size = str(limit["pageSize"])
        if not size.isalnum():
            raise InvalidInput(f'huge page size "{size}"')
        yield f"hugetlb.{size}.max", str(int(limit["limit"]))


def _rdma(devices: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    for name, limit in devices.items():
        handles, objects = limit.get("hcaHandles"), limit.get("hcaObjects")
        text = "" if handles is None else f" hca_handle={int(handles)}"
        text += "" if objects is None else f" hca_object={int(objects)}"
        yield "rdma.max", f"{name}{text}"


def _unified(unified: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for name, value in unified.items():
        if "/" in name or not name or name in (".", "..") or name.startswith("cgroup."):
            raise InvalidInput(f'linux.resources.unified: "{name}" cannot be set')
        yield name, str(value)


class Group:
    """One control group by its directory; makes nothing by being made."""

    def __init__(self, path: str) -> None:
        self.path = path

    def make(self) -> None:
        """Make the directory."""
        os.mkdir(self.path, 0o755)

    def add(self, pid: int = 0) -> None:
        """Move a process (0: the caller) into the group."""
        self.write("cgroup.procs", str(pid))

    def write(self, name: str, value: str) -> None:
        """Write a file of the group. Raises ``OSError`` that names it."""
        try:
            fd = os.open(f"{self.path}/{name}", os.O_WRONLY | os.O_CLOEXEC)
        except FileNotFoundError as error:
            raise OSError(error.errno, "not supported by this kernel", f"cgroup {name}") from None
        try:
            os.write(fd, value.encode())
        except OSError as error:
            why = f'{os.strerror(error.errno or 0)} writing "{value}"'
            raise OSError(error.errno, why, f"cgroup {name}") from None
        finally:
            os.close(fd)

    def read(self, name: str) -> str:
        """The text of a file of the group, "" if there is none."""
        try:
            fd = os.open(f"{self.path}/{name}", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return ""
        parts: list[bytes] = []
        try:
            while len(parts) < _MAX_READS and (part := os.read(fd, _READ)):
                parts.append(part)
        except OSError:
            return ""
        finally:
            os.close(fd)
        return b"".join(parts).decode()

    def set(self, resources: Mapping[str, Any]) -> None:
        """Apply OCI's linux.resources."""
        for name, value in plan(resources):
            self.write(name, value)

    def processes(self) -> list[int]:
        """The process ids in the group and below it."""
        found: list[int] = []
        for directory in self._tree():
            found += [int(p) for p in Group(directory).read("cgroup.procs").split()]
        return found

    def _tree(self) -> list[str]:
        """This directory and all below it, deepest last."""
        found, at = [self.path], 0
        while at < len(found):
            try:
                with os.scandir(found[at]) as entries:
                    found += [e.path for e in entries if e.is_dir(follow_symlinks=False)]
            except FileNotFoundError:
                pass
            at += 1
        return found

    def kill(self) -> None:
        """SIGKILL for every process of the group and below."""
        try:
            self.write("cgroup.kill", "1")
        except OSError:
            for pid in self.processes():
                try:
                    os.kill(pid, 9)
                except ProcessLookupError:
                    pass

    def freeze(self, frozen: bool) -> None:  # noqa: FBT001 - a state, not an option
        """Stop or continue every process of the group."""
        self.write("cgroup.freeze", "1" if frozen else "0")

    def event(self, file: str, name: str) -> int:
        """A counter of an events file, e.g. ``oom_kill`` of ``memory.events``."""
        for line in self.read(file).splitlines():
            key, _, value = line.partition(" ")
            if key == name:
                return int(value)
        return 0

    def stats(self) -> dict[str, str]:
        """The texts of all files that tell about use."""
        found = {name: self.read(name) for name in STAT_FILES}
        return {name: text for name, text in found.items() if text}

    def remove(self) -> None:
        """Remove the group and those below it; raises ``OSError`` while processes are in it."""
        for directory in reversed(self._tree()):
            try:
                os.rmdir(directory)
            except FileNotFoundError:
                pass


def enable_controllers(path: str) -> None:
    """Hand down every controller of a group to its children; those that refuse are left out."""
    group = Group(path)
    for name in group.read("cgroup.controllers").split():
        try:
            group.write("cgroup.subtree_control", f"+{name}")
        except OSError:
            pass
