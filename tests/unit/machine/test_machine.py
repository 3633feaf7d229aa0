"""Machines: shapes, the kernel's command line, abilities."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kata.errors import InvalidInput, Unsupported
from kata.machine.capabilities import capabilities_of, require
from kata.machine.command_line import command_line
from kata.machine.description import Machine, guest_visible
from kata.machine.sizing import SMALLEST, machine_memory, machine_vcpus, memory_for
from kata.wire.record import replace

MACHINE = Machine(kernel="/k", initrd="/i", image_digest="d", command_line="quiet")


@given(st.integers(SMALLEST, 1 << 20))
def test_a_shape_holds_what_was_wanted(wanted):
    """Memory is rounded up, never down, and a shape is its own shape."""
    shape = machine_memory(wanted)
    assert shape >= wanted
    assert machine_memory(shape) == shape


def test_shapes_are_few():
    """All wishes up to 8 GiB meet in seven shapes."""
    shapes = {machine_memory(n) for n in range(SMALLEST, 8193)}
    assert sorted(shapes) == [256, 512, 1024, 2048, 4096, 6144, 8192]


def test_a_limit_leaves_room_for_the_guest():
    """A machine for a limit has more than the limit: the guest itself needs some."""
    assert memory_for(512) > 512


@pytest.mark.parametrize("wanted", [0, -1, SMALLEST - 1])
def test_too_little_memory_is_refused(wanted):
    """A machine in which no guest boots is refused, with the least that works."""
    with pytest.raises(InvalidInput, match=str(wanted)) as caught:
        machine_memory(wanted)
    assert str(SMALLEST) in caught.value.why


@given(st.integers(1, 240))
def test_processors_are_rounded_up(wanted):
    """A machine has at least the processors wanted."""
    shape = machine_vcpus(wanted)
    assert wanted <= shape <= 240
    assert machine_vcpus(shape) == shape


@pytest.mark.parametrize("wanted", [0, 241])
def test_impossible_processors_are_refused(wanted):
    """No processors, or more than any machine takes, is an error of the request."""
    with pytest.raises(InvalidInput, match=str(wanted)):
        machine_vcpus(wanted)


def test_the_command_line_ends_with_the_configured_words():
    """Words of the configuration come last, so that they win; a dead guest ends the VMM."""
    words = command_line("tcg", "foo=1 bar").split()
    assert words[-2:] == ["foo=1", "bar"]
    assert "panic=-1" in words
    assert "console=ttyS0" in words


def test_mitigations_are_off_only_under_emulation():
    """A translator has no speculation to guard against; a processor has."""
    assert "mitigations=off" in command_line("tcg").split()
    assert "mitigations=off" not in command_line("kvm").split()


def test_how_memory_is_held_is_not_seen_by_the_guest():
    """One template serves machines with private and with shared memory, and moved image files."""
    other = replace(MACHINE, shared_memory=True, kernel="/elsewhere/k")
    assert guest_visible(other) == guest_visible(MACHINE)
    assert guest_visible(replace(MACHINE, memory_mib=1024)) != guest_visible(MACHINE)


def test_all_that_is_missing_is_named_at_once():
    """A request that a machine type cannot meet names every reason in one error."""
    machine = replace(MACHINE, machine_type="microvm")
    with pytest.raises(Unsupported, match="no file share and no generation id"):
        require(machine, file_share=True, generation_id=True, template=True)
    require(machine, file_share=False, template=True)
    with pytest.raises(Unsupported, match="has no network hotplug"):
        require(replace(MACHINE, machine_type="q35"), network=True, network_hotplug=True)


def test_an_unknown_machine_type_is_named():
    """A machine type nobody knows is an error that lists those that are known."""
    with pytest.raises(Unsupported, match="isapc") as caught:
        capabilities_of(replace(MACHINE, machine_type="isapc"))
    assert "q35" in caught.value.hint
