"""Statistics: the guest's numbers in the form that a host's version of control groups has.

Pure but for the question which version that is. The guest has version 2 whatever the host has; a
limit of "max" is the largest number, as the kernel's own files have it.
"""

from __future__ import annotations

from kata.wire.ttrpc import AnyMessage

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

    from kata.wire.agent_api import StatsResponse

UNLIMITED = (1 << 64) - 1
_RENAMED = {"usage": "memory.current", "usage_limit": "memory.max", "max_usage": "memory.peak",
            "swap_usage": "memory.swap.current", "swap_limit": "memory.swap.max"}  # fmt: skip
# version 1's names, and version 2's of the same
_MEMORY_1 = {
    "cache": "file", "rss": "anon", "rss_huge": "anon_thp", "mapped_file": "file_mapped",
    "dirty": "file_dirty", "writeback": "file_writeback", "pg_fault": "pgfault",
    "pg_maj_fault": "pgmajfault", "inactive_anon": "inactive_anon", "active_anon": "active_anon",
    "inactive_file": "inactive_file", "active_file": "active_file", "unevictable": "unevictable",
}  # fmt: skip


def metrics(found: StatsResponse, version: int = 0) -> AnyMessage:
    """The numbers of a container; ``version`` of control groups, 0: the host's."""
    if not version:
        from kata.linux.cgroups import detect

        version = detect().version
    files: dict[str, str] = dict(found.files)
    return _version_1(files) if version == 1 else _version_2(files)


def _version_1(files: Mapping[str, str]) -> AnyMessage:
    from kata.wire import containerd_metrics1 as api

    cpu, events = table(files, "cpu.stat"), table(files, "memory.events")
    limit = number(files, "memory.max")
    entries = {
        file: api.MemoryEntry(limit=number(files, f"{file}.max"), usage=number(files, current))
        for file, current in (("memory", "memory.current"), ("memory.swap", "memory.swap.current"))
    }
    entries["memory"].max = number(files, "memory.peak")
    entries["memory"].failcnt = events.get("max", 0)
    # version 1 counts swap together with memory
    both = entries["memory.swap"].usage + entries["memory"].usage
    entries["memory.swap"].usage = min(both, UNLIMITED)
    total = entries["memory.swap"].limit + limit
    entries["memory.swap"].limit = min(total, UNLIMITED)
    answer = api.Metrics(
        pids=api.PidsStat(**_pids(files)),
        cpu=api.CPUStat(
            usage=api.CPUUsage(
                total=_nanoseconds(cpu, "usage_usec"), kernel=_nanoseconds(cpu, "system_usec"),
                user=_nanoseconds(cpu, "user_usec"),
            ),
            throttling=api.Throttle(
                periods=cpu.get("nr_periods", 0), throttled_periods=cpu.get("nr_throttled", 0),
                throttled_time=_nanoseconds(cpu, "throttled_usec"),
            ),
        ),
        memory=api.MemoryStat(
            **_memory_1(table(files, "memory.stat")), hierarchical_memory_limit=limit,
            hierarchical_swap_limit=entries["memory.swap"].limit, usage=entries["memory"],
            swap=entries["memory.swap"],
        ),
        blkio=_blkio(files),
        memory_oom_control=api.MemoryOomControl(oom_kill=events.get("oom_kill", 0)),
    )  # fmt: skip
    return AnyMessage(type_url=api.KIND, value=answer.encode())


def _nanoseconds(cpu: Mapping[str, int], name: str) -> int:
    return min(cpu.get(name, 0) * 1000, UNLIMITED)


def _memory_1(stat: Mapping[str, int]) -> dict[str, int]:
    own = {name: stat.get(other, 0) for name, other in _MEMORY_1.items()}
    return {**own, **{f"total_{name}": value for name, value in own.items()}}


def _blkio(files: Mapping[str, str]) -> Any:
    from kata.wire import containerd_metrics1 as api

    bytes_: list[api.BlkIOEntry] = []
    requests: list[api.BlkIOEntry] = []
    for major, minor, row in devices(files):
        for into, op, key in (
            (bytes_, "Read", "rbytes"), (bytes_, "Write", "wbytes"),
            (requests, "Read", "rios"), (requests, "Write", "wios"),
        ):  # fmt: skip
            into.append(api.BlkIOEntry(op=op, major=major, minor=minor, value=row.get(key, 0)))
    return api.BlkIOStat(io_service_bytes_recursive=bytes_, io_serviced_recursive=requests)


def _version_2(files: Mapping[str, str]) -> AnyMessage:
    from kata.wire import containerd_metrics2 as api

    stat = table(files, "memory.stat")
    names = [field.name for field in api.MemoryStat.FIELDS if field.name not in _RENAMED]
    memory = {name: stat.get(name, 0) for name in names}
    memory.update({name: number(files, file) for name, file in _RENAMED.items()})
    events = table(files, "memory.events")
    answer = api.Metrics(
        pids=api.PidsStat(**_pids(files)),
        cpu=api.CPUStat(**_known(api.CPUStat, table(files, "cpu.stat"))),
        memory=api.MemoryStat(**memory),
        io=api.IOStat(
            usage=[
                api.IOEntry(major=major, minor=minor, **_known(api.IOEntry, row))
                for major, minor, row in devices(files)
            ]
        ),
        memory_events=api.MemoryEvents(**_known(api.MemoryEvents, events)),
    )  # fmt: skip
    return AnyMessage(type_url=api.KIND, value=answer.encode())


def _known(kind: Any, row: Mapping[str, int]) -> dict[str, int]:
    return {field.name: row[field.name] for field in kind.FIELDS if field.name in row}


def _pids(files: Mapping[str, str]) -> dict[str, int]:
    limit = number(files, "pids.max")
    return {
        "current": number(files, "pids.current"), "limit": 0 if limit == UNLIMITED else limit,
    }  # fmt: skip


def table(files: Mapping[str, str], name: str) -> dict[str, int]:
    """A file of lines ``name number``."""
    rows = (line.partition(" ") for line in files.get(name, "").splitlines())
    return {key: _whole(value) for key, _, value in rows if value.isdecimal()}


def number(files: Mapping[str, str], name: str) -> int:
    """A file of one number, 0 if it is not there."""
    text = files.get(name, "").strip()
    if text == "max":
        return UNLIMITED
    return _whole(text) if text.isdecimal() else 0


def _whole(text: str) -> int:
    """No more than fits: the guest may say anything."""
    return min(int(text[:24]), UNLIMITED)


def devices(files: Mapping[str, str]) -> Iterator[tuple[int, int, dict[str, int]]]:
    """The rows of io.stat: ``major:minor name=number …``."""
    for line in files.get("io.stat", "").splitlines():
        device, *words = line.split() or [""]
        major, _, minor = device.partition(":")
        if major.isdecimal() and minor.isdecimal():
            pairs = (word.partition("=") for word in words)
            yield _whole(major), _whole(minor), {
                key: _whole(value) for key, _, value in pairs if value.isdecimal()
            }  # fmt: skip
