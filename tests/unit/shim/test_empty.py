"""What machine CreateSandbox asks for."""

import pytest

from kata.oci.pods import Shape
from kata.shim.empty import pod_of, shape_of
from kata.wire.containerd_sandbox import (
    CreateSandboxRequest,
    LinuxPodConfig,
    PodConfig,
    PodResources,
)
from kata.wire.ttrpc import AnyMessage

KIND = "type.googleapis.com/runtime.v1.PodSandboxConfig"


def asked(config: PodConfig, kind: str = KIND, **annotations) -> CreateSandboxRequest:
    """A request with CRI's description of a pod."""
    named = {f"io.kubernetes.cri.{k.replace('_', '-')}": text for k, text in annotations.items()}
    options = AnyMessage(type_url=kind, value=config.encode())
    return CreateSandboxRequest(sandbox_id="pod", options=options, annotations=named)


def limited(**resources) -> PodConfig:
    """A pod whose containers need so much."""
    return PodConfig(hostname="h", linux=LinuxPodConfig(resources=PodResources(**resources)))


@pytest.mark.parametrize(
    ("config", "shape"),
    [
        (PodConfig(hostname="h"), Shape()),
        (limited(), Shape()),
        (limited(cpu_quota=250_000, cpu_period=100_000), Shape(cpus=3)),
        (limited(cpu_quota=-1, memory_limit_in_bytes=1 << 30), Shape(memory=1 << 30)),
    ],
)
def test_what_the_containers_will_need(config, shape):
    """Processors are rounded up; nothing said is the default."""
    assert shape_of(asked(config)) == shape
    assert pod_of(asked(config)).hostname == "h"


def test_annotations_where_options_say_nothing():
    """As for a pod with a pause container."""
    request = asked(PodConfig(), sandbox_memory="1000000", sandbox_cpu_quota="100001")
    assert shape_of(request) == Shape(cpus=2, memory=1_000_000)


def test_options_of_another_kind():
    """They are nobody's description of a pod."""
    assert pod_of(asked(limited(), kind="other")) == PodConfig()
    assert pod_of(CreateSandboxRequest()) == PodConfig()
