"""Which virtual machine a wish gets on this host."""

import os

import pytest

from kata.config.settings import build
from kata.errors import HostError
from kata.hypervisors.qemu.driver import _hint
from kata.runtime.guest_image import GuestImage
from kata.runtime.machines import describe

IMAGE = GuestImage("/d", "1", "/k", "/i", "6", "0", "0", "3", (1, 1), ("", ""))
HOST_MIB = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") >> 20


def test_a_machine_larger_than_the_host_is_refused():
    """Before anything is made: what the host has, and which option to lower."""
    with pytest.raises(HostError, match=f"it has {HOST_MIB} MiB") as caught:
        describe(build({}), IMAGE, vcpus=1, memory_mib=HOST_MIB + 1)
    assert "--memory" in caught.value.hint


def test_a_shape_is_no_larger_than_the_host():
    """Rounding up never makes a wish too large that the host can fulfil."""
    assert describe(build({}), IMAGE, vcpus=1, memory_mib=HOST_MIB).memory_mib == HOST_MIB


def test_qemu_without_memory_is_no_broken_qemu():
    """What is said about a QEMU that ended at once fits what it said itself."""
    assert "--memory" in _hint("/q", "QEMU ended with status 1: /q: cannot set up guest memory "
                               "'memory': Cannot allocate memory")  # fmt: skip
    assert "/q" in _hint("/q", "QEMU ended with status 127")
