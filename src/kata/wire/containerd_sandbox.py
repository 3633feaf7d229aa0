"""containerd's Sandbox API: ``containerd.runtime.sandbox.v1.Sandbox``.

Source: containerd's ``api/runtime/sandbox/v1/sandbox.proto``.
"""

from __future__ import annotations

from kata.wire.calls import Empty
from kata.wire.containerd_types import Metric, Mount, Platform, Timestamp
from kata.wire.protobuf import (
    Message,
    boolean,
    int64,
    mapping,
    nested,
    repeated,
    string,
    uint32,
)
from kata.wire.ttrpc import AnyMessage


class SandboxRequest(Message):
    """StartSandbox, Platform, WaitSandbox, PingSandbox, ShutdownSandbox, SandboxMetrics."""

    sandbox_id: str = string(1)


class CreateSandboxRequest(Message):
    """Make a sandbox without any container."""

    sandbox_id: str = string(1)
    bundle_path: str = string(2)
    rootfs: list[Mount] = repeated(nested(Mount, 3))
    options: AnyMessage | None = nested(AnyMessage, 4)
    netns_path: str = string(5)
    annotations: dict[str, str] = mapping(6)


class StartSandboxResponse(Message):
    """It runs."""

    pid: int = uint32(1)
    created_at: Timestamp | None = nested(Timestamp, 2)


class PlatformResponse(Message):
    """What programs it runs."""

    platform: Platform | None = nested(Platform, 1)


class StopSandboxRequest(Message):
    """End it, with whatever runs in it."""

    sandbox_id: str = string(1)
    timeout_secs: int = uint32(2)


class WaitSandboxResponse(Message):
    """It has ended."""

    exit_status: int = uint32(1)
    exited_at: Timestamp | None = nested(Timestamp, 2)


class SandboxStatusRequest(Message):
    """Ask how it is."""

    sandbox_id: str = string(1)
    verbose: bool = boolean(2)


class SandboxStatusResponse(Message):
    """``state`` is one of containerd's words: SANDBOX_READY, SANDBOX_NOTREADY."""

    sandbox_id: str = string(1)
    pid: int = uint32(2)
    state: str = string(3)
    info: dict[str, str] = mapping(4)
    created_at: Timestamp | None = nested(Timestamp, 5)
    exited_at: Timestamp | None = nested(Timestamp, 6)
    extra: AnyMessage | None = nested(AnyMessage, 7)


class SandboxMetricsResponse(Message):
    """What it uses."""

    metrics: Metric | None = nested(Metric, 1)


METHODS: dict[str, tuple[type[Message], type[Message]]] = {
    "CreateSandbox": (CreateSandboxRequest, Empty),
    "StartSandbox": (SandboxRequest, StartSandboxResponse),
    "Platform": (SandboxRequest, PlatformResponse),
    "StopSandbox": (StopSandboxRequest, Empty),
    "WaitSandbox": (SandboxRequest, WaitSandboxResponse),
    "SandboxStatus": (SandboxStatusRequest, SandboxStatusResponse),
    "PingSandbox": (SandboxRequest, Empty),
    "ShutdownSandbox": (SandboxRequest, Empty),
}


# of CRI's PodSandboxConfig, the options of CreateSandbox: what a machine is made by
# (kubernetes' cri-api, ``runtime/v1/api.proto``)


class PodResources(Message):
    """``LinuxContainerResources``: microseconds and bytes, 0 for none."""

    cpu_period: int = int64(1)
    cpu_quota: int = int64(2)
    memory_limit_in_bytes: int = int64(4)


class LinuxPodConfig(Message):
    """``LinuxPodSandboxConfig``: what all containers of the pod will need."""

    cgroup_parent: str = string(1)
    sysctls: dict[str, str] = mapping(3)
    resources: PodResources | None = nested(PodResources, 5)


class DnsConfig(Message):
    """How its containers find names."""

    servers: list[str] = repeated(string(1))
    searches: list[str] = repeated(string(2))
    options: list[str] = repeated(string(3))


class PodConfig(Message):
    """``PodSandboxConfig``."""

    hostname: str = string(2)
    dns_config: DnsConfig | None = nested(DnsConfig, 4)
    linux: LinuxPodConfig | None = nested(LinuxPodConfig, 8)
