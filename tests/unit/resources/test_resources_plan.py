"""Limits of a sandbox as files of control groups."""

from __future__ import annotations

import pytest

from kata.errors import InvalidInput
from kata.resources.plan import Limits, controllers, for_machine, plan, weight_of_shares

ALL = Limits(
    memory=1 << 30, cpu_quota=150_000, cpu_shares=1024, cpuset_cpus="0-1", cpuset_mems="0", tasks=99
)


def rows(limits, version):
    return [(w.controller, w.file, w.value) for w in plan(limits, version)]


def test_version_1():
    """Every limit as version 1 writes it; the period comes before the quota."""
    assert rows(ALL, 1) == [
        ("memory", "memory.limit_in_bytes", "1073741824"),
        ("cpu", "cpu.shares", "1024"),
        ("cpu", "cpu.cfs_period_us", "100000"),
        ("cpu", "cpu.cfs_quota_us", "150000"),
        ("cpuset", "cpuset.cpus", "0-1"),
        ("cpuset", "cpuset.mems", "0"),
        ("pids", "pids.max", "99"),
    ]


def test_version_2():
    """Every limit as version 2 writes it; out of memory, all of the sandbox goes."""
    assert rows(ALL, 2) == [
        ("memory", "memory.max", "1073741824"),
        ("memory", "memory.oom.group", "1"),
        ("cpu", "cpu.weight", "39"),
        ("cpu", "cpu.max", "150000 100000"),
        ("cpuset", "cpuset.cpus", "0-1"),
        ("cpuset", "cpuset.mems", "0"),
        ("pids", "pids.max", "99"),
    ]


@pytest.mark.parametrize("version", [1, 2])
def test_what_is_not_limited_is_not_written(version):
    """No limits, no files, and no controllers needed."""
    nothing = Limits(tasks=0)
    assert rows(nothing, version) == []
    assert controllers(nothing) == ()
    assert controllers(ALL) == ("memory", "cpu", "cpuset", "pids")


@pytest.mark.parametrize(("shares", "weight"), [(0, 1), (2, 1), (1024, 39), (262144, 10000)])
def test_shares_become_weights(shares, weight):
    """The conversion of runc, at its ends and at the default."""
    assert weight_of_shares(shares) == weight


def test_a_machine_has_its_memory_and_what_the_monitor_needs():
    """The limit leaves room beside the guest's memory; a quota follows --cpus."""
    limits = for_machine(512, 1.5)
    assert limits.memory == (512 + 160) << 20
    assert (limits.cpu_quota, limits.cpu_period) == (150_000, 100_000)
    assert for_machine(512).cpu_quota == 0
    assert for_machine(512, 0.001).cpu_quota == 1000
    for bad in ((0, 1.0), (512, -1.0)):
        with pytest.raises(InvalidInput):
            for_machine(*bad)
