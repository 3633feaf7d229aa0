"""Names of capabilities, limits and kernel parameters."""

from __future__ import annotations

import pytest

from kata.errors import InvalidInput
from kata.linux import capabilities, rlimits, sysctl
from kata.oci.defaults import ALL_CAPABILITIES, DEFAULT_CAPABILITIES


def test_capability_masks():
    """Docker's default set is the mask that everybody knows; the names are those of oci."""
    assert capabilities.mask_of(DEFAULT_CAPABILITIES) == 0xA80425FB
    assert capabilities.mask_of(ALL_CAPABILITIES) == (1 << 41) - 1
    assert set(capabilities.NAMES) == set(ALL_CAPABILITIES)
    assert capabilities.masks_of({"bounding": ["CAP_CHOWN"]})["effective"] == 0


@pytest.mark.parametrize("name", ["CAP_NOPE", "chown", ""])
def test_unknown_capabilities_are_refused(name):
    """A name that the kernel does not have is an error that quotes it."""
    with pytest.raises(InvalidInput, match=f'"{name}"'):
        capabilities.mask_of([name])


def test_rlimit_numbers_are_those_of_the_library():
    """The numbers agree with Python's own module."""
    import resource

    for name in ("CPU", "NOFILE", "STACK", "NPROC", "RTPRIO", "AS", "MEMLOCK"):
        assert rlimits.number_of(f"RLIMIT_{name}") == getattr(resource, f"RLIMIT_{name}")
    with pytest.raises(InvalidInput):
        rlimits.number_of("RLIMIT_NOPE")


@pytest.mark.parametrize(
    ("name", "path", "namespace"),
    [
        ("net.ipv4.ip_forward", "net/ipv4/ip_forward", "network"),
        ("net/ipv4/conf/eth0.1/forwarding", "net/ipv4/conf/eth0.1/forwarding", "network"),
        ("net.ipv4.conf.eth0/1.forwarding", "net/ipv4/conf/eth0.1/forwarding", "network"),
        ("kernel.shmmax", "kernel/shmmax", "ipc"),
        ("fs.mqueue.msg_max", "fs/mqueue/msg_max", "ipc"),
        ("kernel.domainname", "kernel/domainname", "uts"),
        ("vm.swappiness", "vm/swappiness", ""),
    ],
)
def test_sysctl_names(name, path, namespace):
    """Either separator is taken; each parameter is known by the namespace that holds it."""
    assert (sysctl.path_of(name), sysctl.namespace_of(name)) == (path, namespace)


@pytest.mark.parametrize("name", ["", "net..x", "../x", "net/../../x", "/etc/passwd", "net."])
def test_sysctl_names_that_lead_elsewhere(name):
    """No name leaves /proc/sys."""
    with pytest.raises(InvalidInput):
        sysctl.path_of(name)
