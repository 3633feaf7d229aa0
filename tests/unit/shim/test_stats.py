"""The guest's files of version 2 in the form of either version."""

from hypothesis import given
from hypothesis import strategies as st

from kata.shim.stats import UNLIMITED, metrics
from kata.wire import containerd_metrics1 as one
from kata.wire import containerd_metrics2 as two
from kata.wire.agent_api import StatsResponse

FILES = {
    "cpu.stat": "usage_usec 5000\nuser_usec 3000\nsystem_usec 2000\nnr_periods 4\n"
    "nr_throttled 1\nthrottled_usec 9\n",
    "memory.current": "1000\n", "memory.max": "5000\n", "memory.peak": "1500\n",
    "memory.swap.current": "10\n", "memory.swap.max": "max\n",
    "memory.stat": "anon 300\nfile 400\ninactive_file 250\npgfault 7\nnew_name 1\n",
    "memory.events": "low 0\nhigh 0\nmax 2\noom 1\noom_kill 1\n",
    "pids.current": "3\n", "pids.max": "max\n",
    "io.stat": "254:0 rbytes=10 wbytes=20 rios=1 wios=2 dbytes=0 dios=0\n",
}  # fmt: skip


def test_version_1():
    """Nanoseconds; totals that the kubelet subtracts; swap counted together with memory."""
    found = metrics(StatsResponse(files=FILES), 1)
    assert found.type_url == "io.containerd.cgroups.v1.Metrics"
    got = one.Metrics.decode(found.value)
    usage = got.cpu.usage
    assert (usage.total, usage.user, usage.kernel) == (5_000_000, 3_000_000, 2_000_000)
    assert got.cpu.throttling == one.Throttle(periods=4, throttled_periods=1, throttled_time=9000)
    memory = got.memory
    assert memory.usage == one.MemoryEntry(limit=5000, usage=1000, max=1500, failcnt=2)
    assert memory.swap == one.MemoryEntry(limit=UNLIMITED, usage=1010)
    assert (memory.total_inactive_file, memory.total_rss, memory.rss) == (250, 300, 300)
    assert got.pids == one.PidsStat(current=3, limit=0)
    written = [(e.op, e.value) for e in got.blkio.io_service_bytes_recursive]
    assert written == [("Read", 10), ("Write", 20)]
    assert got.memory_oom_control.oom_kill == 1


def test_version_2():
    """By the kernel's own names."""
    found = metrics(StatsResponse(files=FILES), 2)
    assert found.type_url == "io.containerd.cgroups.v2.Metrics"
    got = two.Metrics.decode(found.value)
    assert (got.cpu.usage_usec, got.cpu.nr_throttled) == (5000, 1)
    assert (got.memory.usage, got.memory.usage_limit, got.memory.max_usage) == (1000, 5000, 1500)
    assert (got.memory.inactive_file, got.memory.swap_limit) == (250, UNLIMITED)
    assert got.io.usage == [two.IOEntry(major=254, rbytes=10, wbytes=20, rios=1, wios=2)]
    assert got.memory_events == two.MemoryEvents(max=2, oom=1, oom_kill=1)


words = st.text(alphabet="0123456789 =:\nabc_maxrbytes²", max_size=60)


def test_numbers_that_overflow():
    """The largest that a field takes is told."""
    most = str(UNLIMITED)
    files = {
        "cpu.stat": f"usage_usec {most}\n", "memory.current": most, "memory.swap.current": most,
        "io.stat": f"8:0 rbytes={most}9\n",
    }  # fmt: skip
    got = one.Metrics.decode(metrics(StatsResponse(files=files), 1).value)
    assert got.cpu.usage.total == got.memory.swap.usage == UNLIMITED
    assert got.blkio.io_service_bytes_recursive[0].value == UNLIMITED


@given(st.dictionaries(st.sampled_from(sorted(FILES)), words), st.sampled_from((1, 2)))
def test_a_guest_may_say_anything(files, version):
    """Numbers too large, or none at all, fail nothing."""
    metrics(StatsResponse(files=files), version)
