"""Which virtual machine a wish gets on this host."""

import os

import pytest

from kata.config.settings import build
from kata.errors import HostError, Unsupported
from kata.hypervisors.qemu.driver import _hint
from kata.runtime.guest_image import GuestImage
from kata.runtime.machines import accelerate, describe

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


def test_a_configured_accelerator_is_proved(tmp_path, monkeypatch):
    """What the configuration demands is taken as it is, but for who wants it tried."""

    def boot(machine, *_):
        raise HostError(f"no guest of type {machine.machine_type}")

    monkeypatch.setattr("kata.runtime.freeze.try_boot", boot)
    monkeypatch.setattr("kata.hypervisors.qemu.probe.KVM_DEVICE", "/dev/null")
    settings = build({
        "hypervisor": {"accelerator": "kvm", "path": "/bin/true", "machine_type": "q35"},
        "runtime": {"state_root": str(tmp_path)},
    })  # fmt: skip
    machine = describe(settings, IMAGE, vcpus=1, memory_mib=256)
    assert accelerate(machine, settings, "6").machine.accelerator == "kvm"
    with pytest.raises(HostError, match="no guest of type q35") as caught:
        accelerate(machine, settings, "6", prove=True)
    assert "accelerator" in caught.value.hint


def test_a_microvm_is_not_emulated(tmp_path):
    """It would hang in its boot: it is refused, with a type that works."""
    settings = build({
        "hypervisor": {"accelerator": "tcg", "path": "/bin/true", "machine_type": "microvm"},
        "runtime": {"state_root": str(tmp_path)},
    })  # fmt: skip
    machine = describe(settings, IMAGE, vcpus=1, memory_mib=256)
    with pytest.raises(Unsupported, match="the configuration says so") as caught:
        accelerate(machine, settings, "6")
    assert '"pc"' in caught.value.hint


def test_qemu_without_memory_is_no_broken_qemu():
    """What is said about a QEMU that ended at once fits what it said itself."""
    why = "QEMU ended with status 1: cannot set up guest memory 'memory': Cannot allocate memory"
    assert "--memory" in _hint("/q", "tcg", why)
    assert "/q" in _hint("/q", "tcg", "QEMU ended with status 127")
    assert "kvm" in _hint("/q", "kvm", "QEMU was killed by signal 11")
