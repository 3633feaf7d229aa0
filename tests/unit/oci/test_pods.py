"""Which virtual machine a container belongs to, by its engine's annotations."""

from __future__ import annotations

import pytest

from kata.errors import InvalidSpec
from kata.oci.pods import ALONE, MEMBER, SANDBOX, Membership, Shape, membership, sizing

CRI = ("io.kubernetes.cri.container-type", "io.kubernetes.cri.sandbox-id")
CRIO = ("io.kubernetes.cri-o.ContainerType", "io.kubernetes.cri-o.SandboxID")


def test_a_container_without_marks_is_alone():
    """Docker's containers, and Podman's outside pods, have a machine each."""
    assert membership("web", {"other": "thing"}) == Membership(ALONE, "web")


@pytest.mark.parametrize("keys", [CRI, CRIO])
def test_the_first_of_a_pod_is_its_sandbox(keys):
    """It names itself, whatever the other mark says."""
    assert membership("pause", {keys[0]: "sandbox", keys[1]: "pause"}).kind == SANDBOX
    assert membership("pause", {keys[0]: "sandbox"}).sandbox == "pause"


@pytest.mark.parametrize("keys", [CRI, CRIO])
def test_the_others_name_it(keys):
    """A member belongs to the sandbox that its annotation names."""
    found = membership("web", {keys[0]: "container", keys[1]: "pause"})
    assert found == Membership(MEMBER, "pause", dropped=keys == CRIO)


@pytest.mark.parametrize("keys", [CRI, CRIO])
def test_a_member_without_a_sandbox_is_refused(keys):
    """The fault names the annotation that is missing."""
    with pytest.raises(InvalidSpec, match="is missing") as caught:
        membership("web", {keys[0]: "container"})
    assert caught.value.path == f'annotations["{keys[1]}"]'


def test_an_unknown_kind_is_refused():
    """A mark that says neither is an error of the engine's."""
    with pytest.raises(InvalidSpec, match='must be "sandbox" or "container"'):
        membership("web", {CRI[0]: "pod"})


@pytest.mark.parametrize(
    ("spec", "shape"),
    [
        ({}, Shape()),
        ({"linux": {"resources": {"memory": {"limit": 1 << 30}}}}, Shape(0, 1 << 30)),
        ({"linux": {"resources": {"memory": {"limit": -1}}}}, Shape()),
        ({"linux": {"resources": {"cpu": {"quota": 150_000, "period": 100_000}}}}, Shape(2, 0)),
        ({"linux": {"resources": {"cpu": {"quota": 50_000}}}}, Shape(1, 0)),
        ({"linux": {"resources": {"cpu": {"quota": -1}}}}, Shape()),
        ({"annotations": {"io.kubernetes.cri.sandbox-memory": "2147483648",
                          "io.kubernetes.cri.sandbox-cpu-quota": "300000",
                          "io.kubernetes.cri.sandbox-cpu-period": "100000"},
          "linux": {"resources": {"memory": {"limit": 1}}}}, Shape(3, 2 << 30)),
        ({"annotations": {"io.kubernetes.cri.sandbox-memory": "many"}}, Shape()),
    ],
)  # fmt: skip
def test_the_shape_of_the_machine(spec, shape):
    """Limits of the container, or of the whole pod where the engine tells them."""
    assert sizing(spec) == shape
