"""Statistics as containerd reads them on hosts with version 2 of control groups.

Source: containerd/cgroups ``cgroup2/stats/metrics.proto``; parts that a guest has no numbers for
are left out.
"""

from __future__ import annotations

from kata.wire.protobuf import Message, nested, repeated, uint64

KIND = "io.containerd.cgroups.v2.Metrics"


class PidsStat(Message):
    """Processes; the limit 0 is none."""

    current: int = uint64(1)
    limit: int = uint64(2)


class CPUStat(Message):
    """Microseconds."""

    usage_usec: int = uint64(1)
    user_usec: int = uint64(2)
    system_usec: int = uint64(3)
    nr_periods: int = uint64(4)
    nr_throttled: int = uint64(5)
    throttled_usec: int = uint64(6)


class MemoryStat(Message):
    """Bytes and counts, by the names of memory.stat; then the files beside it."""

    anon: int = uint64(1)
    file: int = uint64(2)
    kernel_stack: int = uint64(3)
    slab: int = uint64(4)
    sock: int = uint64(5)
    shmem: int = uint64(6)
    file_mapped: int = uint64(7)
    file_dirty: int = uint64(8)
    file_writeback: int = uint64(9)
    anon_thp: int = uint64(10)
    inactive_anon: int = uint64(11)
    active_anon: int = uint64(12)
    inactive_file: int = uint64(13)
    active_file: int = uint64(14)
    unevictable: int = uint64(15)
    slab_reclaimable: int = uint64(16)
    slab_unreclaimable: int = uint64(17)
    pgfault: int = uint64(18)
    pgmajfault: int = uint64(19)
    workingset_refault: int = uint64(20)
    workingset_activate: int = uint64(21)
    workingset_nodereclaim: int = uint64(22)
    pgrefill: int = uint64(23)
    pgscan: int = uint64(24)
    pgsteal: int = uint64(25)
    pgactivate: int = uint64(26)
    pgdeactivate: int = uint64(27)
    pglazyfree: int = uint64(28)
    pglazyfreed: int = uint64(29)
    thp_fault_alloc: int = uint64(30)
    thp_collapse_alloc: int = uint64(31)
    usage: int = uint64(32)
    usage_limit: int = uint64(33)
    swap_usage: int = uint64(34)
    swap_limit: int = uint64(35)
    max_usage: int = uint64(36)
    swap_max_usage: int = uint64(37)


class MemoryEvents(Message):
    """The file memory.events."""

    low: int = uint64(1)
    high: int = uint64(2)
    max: int = uint64(3)
    oom: int = uint64(4)
    oom_kill: int = uint64(5)


class IOEntry(Message):
    """One device."""

    major: int = uint64(1)
    minor: int = uint64(2)
    rbytes: int = uint64(3)
    wbytes: int = uint64(4)
    rios: int = uint64(5)
    wios: int = uint64(6)


class IOStat(Message):
    """All devices."""

    usage: list[IOEntry] = repeated(nested(IOEntry, 1))


class Metrics(Message):
    """All of it."""

    pids: PidsStat | None = nested(PidsStat, 1)
    cpu: CPUStat | None = nested(CPUStat, 2)
    memory: MemoryStat | None = nested(MemoryStat, 4)
    io: IOStat | None = nested(IOStat, 6)
    memory_events: MemoryEvents | None = nested(MemoryEvents, 8)
