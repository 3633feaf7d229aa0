"""Statistics as containerd reads them on hosts with version 1 of control groups.

Source: containerd/cgroups ``cgroup1/stats/metrics.proto``; parts that a guest has no numbers for
are left out.
"""

from __future__ import annotations

from kata.wire.protobuf import Message, nested, repeated, string, uint64

KIND = "io.containerd.cgroups.v1.Metrics"


class PidsStat(Message):
    """Processes; the limit 0 is none."""

    current: int = uint64(1)
    limit: int = uint64(2)


class CPUUsage(Message):
    """Nanoseconds."""

    total: int = uint64(1)
    kernel: int = uint64(2)
    user: int = uint64(3)
    per_cpu: list[int] = repeated(uint64(4))


class Throttle(Message):
    """How often, and for how many nanoseconds, the quota was used up."""

    periods: int = uint64(1)
    throttled_periods: int = uint64(2)
    throttled_time: int = uint64(3)


class CPUStat(Message):
    """Processor time."""

    usage: CPUUsage | None = nested(CPUUsage, 1)
    throttling: Throttle | None = nested(Throttle, 2)


class MemoryEntry(Message):
    """Bytes; ``failcnt`` is how often the limit was met."""

    limit: int = uint64(1)
    usage: int = uint64(2)
    max: int = uint64(3)
    failcnt: int = uint64(4)


class MemoryStat(Message):
    """Bytes and counts."""

    cache: int = uint64(1)
    rss: int = uint64(2)
    rss_huge: int = uint64(3)
    mapped_file: int = uint64(4)
    dirty: int = uint64(5)
    writeback: int = uint64(6)
    pg_pg_in: int = uint64(7)
    pg_pg_out: int = uint64(8)
    pg_fault: int = uint64(9)
    pg_maj_fault: int = uint64(10)
    inactive_anon: int = uint64(11)
    active_anon: int = uint64(12)
    inactive_file: int = uint64(13)
    active_file: int = uint64(14)
    unevictable: int = uint64(15)
    hierarchical_memory_limit: int = uint64(16)
    hierarchical_swap_limit: int = uint64(17)
    total_cache: int = uint64(18)
    total_rss: int = uint64(19)
    total_rss_huge: int = uint64(20)
    total_mapped_file: int = uint64(21)
    total_dirty: int = uint64(22)
    total_writeback: int = uint64(23)
    total_pg_pg_in: int = uint64(24)
    total_pg_pg_out: int = uint64(25)
    total_pg_fault: int = uint64(26)
    total_pg_maj_fault: int = uint64(27)
    total_inactive_anon: int = uint64(28)
    total_active_anon: int = uint64(29)
    total_inactive_file: int = uint64(30)
    total_active_file: int = uint64(31)
    total_unevictable: int = uint64(32)
    usage: MemoryEntry | None = nested(MemoryEntry, 33)
    swap: MemoryEntry | None = nested(MemoryEntry, 34)
    kernel: MemoryEntry | None = nested(MemoryEntry, 35)
    kernel_tcp: MemoryEntry | None = nested(MemoryEntry, 36)


class BlkIOEntry(Message):
    """A number of one device: ``op`` is Read or Write."""

    op: str = string(1)
    device: str = string(2)
    major: int = uint64(3)
    minor: int = uint64(4)
    value: int = uint64(5)


class BlkIOStat(Message):
    """Bytes, and requests."""

    io_service_bytes_recursive: list[BlkIOEntry] = repeated(nested(BlkIOEntry, 1))
    io_serviced_recursive: list[BlkIOEntry] = repeated(nested(BlkIOEntry, 2))


class MemoryOomControl(Message):
    """What became of a lack of memory."""

    oom_kill_disable: int = uint64(1)
    under_oom: int = uint64(2)
    oom_kill: int = uint64(3)


class Metrics(Message):
    """All of it."""

    pids: PidsStat | None = nested(PidsStat, 2)
    cpu: CPUStat | None = nested(CPUStat, 3)
    memory: MemoryStat | None = nested(MemoryStat, 4)
    blkio: BlkIOStat | None = nested(BlkIOStat, 5)
    memory_oom_control: MemoryOomControl | None = nested(MemoryOomControl, 9)
