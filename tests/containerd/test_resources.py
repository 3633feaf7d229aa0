"""Figures and limits over CRI: statistics of containers and pods, updates of what runs."""

from __future__ import annotations

import pytest

from support.cri import until

BUSY = "dd if=/dev/zero of=/dev/shm/x bs=9M count=1; echo ready; while :; do :; done"
QUOTA = "cat /sys/fs/cgroup/cpu.max /sys/fs/cgroup/cpu/cpu.cfs_quota_us 2>/dev/null; true"
LIMIT = (
    "cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null; true"
)


@pytest.fixture(scope="module")
def busy(pods):
    """A pod of two containers, one of which works."""
    pod = pods()
    pod.up("idle")
    pod.up("busy", "sh", "-c", BUSY)
    pod.logged("busy", "ready")
    return pod


def test_container(busy):
    """Processor time grows with work, memory holds what is used, and no more than there is."""

    def stats(name: str):
        return busy.cri("ContainerStats", container_id=busy.ids[name]).stats

    first = stats("busy")
    assert first.attributes.metadata.name == "busy"
    assert first.cpu.timestamp > 0
    used = first.cpu.usage_core_nano_seconds.value
    assert used > 0
    until(lambda: stats("busy").cpu.usage_core_nano_seconds.value > used + 50_000_000)
    assert 8_000_000 < stats("busy").memory.working_set_bytes.value < 64_000_000
    assert 0 < stats("idle").memory.working_set_bytes.value < 64_000_000
    assert (
        stats("idle").cpu.usage_core_nano_seconds.value
        < stats("busy").cpu.usage_core_nano_seconds.value
    )


def test_writable_layer(busy):
    """What a container writes to its root is counted."""

    def used() -> int:
        stats = busy.cri("ContainerStats", container_id=busy.ids["idle"]).stats
        return stats.writable_layer.used_bytes.value

    before = used()
    busy.sh("idle", "head -c 3000000 /dev/zero >/big; sync")
    until(lambda: used() > before + 2_900_000, 40)  # containerd looks every ten seconds


def test_list(busy):
    """The list of a pod's figures has a row for each container."""
    rows = busy.cri("ListContainerStats", filter={"pod_sandbox_id": busy.id}).stats
    assert sorted(row.attributes.metadata.name for row in rows) == ["busy", "idle"]
    assert all(row.memory.working_set_bytes.value > 0 for row in rows)


def test_pod(busy):
    """A pod's figures are about its network, its processes and its containers."""
    busy.sh("idle", "ping -c1 -W2 10.91.0.1")
    stats = busy.cri("PodSandboxStats", pod_sandbox_id=busy.id).stats
    assert stats.attributes.id == busy.id
    assert stats.linux.cpu.usage_core_nano_seconds.value > 0
    assert stats.linux.memory.working_set_bytes.value > 0
    assert stats.linux.network.default_interface.name == "eth0"
    assert stats.linux.network.default_interface.tx_bytes.value > 0
    names = sorted(row.attributes.metadata.name for row in stats.linux.containers)
    assert names == ["busy", "idle"]
    listed = busy.cri("ListPodSandboxStats").stats
    assert busy.id in [row.attributes.id for row in listed]


def test_update(busy):
    """Limits of what runs are changed, and hold."""

    def update(**limits: object) -> None:
        busy.cri("UpdateContainerResources", container_id=busy.ids["idle"], linux=limits)

    update(cpu_period=100_000, cpu_quota=20_000, memory_limit_in_bytes=30 << 20)
    assert "20000" in busy.sh("idle", QUOTA)
    assert str(30 << 20) in busy.sh("idle", LIMIT)
    words = "dd if=/dev/zero of=/dev/null bs=50M count=1 && echo survived"
    assert "survived" not in busy.exec("idle", "sh", "-c", words).out
    update(cpu_period=100_000, cpu_quota=50_000, memory_limit_in_bytes=300 << 20)
    assert "50000" in busy.sh("idle", QUOTA)
    assert busy.sh("idle", words) == "survived"


def test_limits_from_the_start(make_pod):
    """A container is born with its limits."""
    pod = make_pod()
    limits = {
        "cpu_period": 100_000,
        "cpu_quota": 30_000,
        "memory_limit_in_bytes": 40 << 20,
        "cpu_shares": 512,
    }
    pod.up("box", linux={"resources": limits})
    assert "30000" in pod.sh("box", QUOTA)
    assert str(40 << 20) in pod.sh("box", LIMIT)
