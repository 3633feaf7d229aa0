"""Memory for what containers may use: how much, when, and what is refused."""

import pytest

from kata.errors import HypervisorError, Unsupported
from kata.machine.description import Machine
from kata.runtime.growth import Growth, limit_of, needed_mib
from kata.wire.record import replace

MIB = 1 << 20
MACHINE = Machine(
    kernel="/k", initrd="/i", image_digest="d", command_line="quiet", most_memory_mib=4096
)


class Host:
    """A hypervisor and a guest that takes what is plugged; it notes what is done in which order."""

    def __init__(self, *, refuses=False):
        self.done = []
        self.total = 400 * MIB
        self._refuses = refuses

    def plug_memory(self, slot, mib):
        """The VMM's."""
        if self._refuses:
            raise HypervisorError("QEMU refused device_add")
        self.done.append(("plug", slot, mib))
        self.total += mib * MIB

    def reach(self, growth, wanted):
        """As a sandbox asks for it."""
        growth.reach(wanted, self, lambda: self.total, lambda mib: self.done.append(("group", mib)))


def test_what_is_there_is_not_plugged():
    """A machine that has enough stays as it is."""
    host, growth = Host(), Growth(MACHINE)
    host.reach(growth, 512)
    assert host.done == []


def test_the_group_grows_before_the_machine():
    """The host's limit is raised first: the VMM must never meet the old one."""
    host, growth = Host(), Growth(MACHINE)
    host.reach(growth, 700)
    host.reach(growth, 1500)
    assert host.done == [("group", 1024), ("plug", 0, 512), ("group", 2048), ("plug", 1, 1024)]
    assert growth.memory_mib == 2048


def test_a_refused_plug_changes_nothing():
    """Group and books are as before."""
    host, growth = Host(refuses=True), Growth(MACHINE)
    with pytest.raises(HypervisorError, match="device_add"):
        host.reach(growth, 700)
    assert host.done == [("group", 1024), ("group", 512)]
    assert growth.memory_mib == 512


def test_more_than_the_host_has_is_bounded():
    """A limit is no reservation: the machine gets what there is, and then stays."""
    host, growth = Host(), Growth(MACHINE)
    host.reach(growth, 90_000)
    assert growth.memory_mib == 4096
    host.reach(growth, 90_000)
    assert len(host.done) == 2


def test_slots_come_to_an_end():
    """The fifth step is refused, with what to do instead."""
    host, growth = Host(), Growth(replace(MACHINE, most_memory_mib=1 << 20))
    for wanted in (700, 1500, 3000, 5000):
        host.reach(growth, wanted)
    with pytest.raises(Unsupported, match="has 6144 MiB, the limits together need 7000") as caught:
        host.reach(growth, 7000)
    assert "4 times" in caught.value.why
    assert "start" in caught.value.hint


def test_a_machine_that_cannot_grow_says_so():
    """microvm has no slots."""
    growth = Growth(replace(MACHINE, machine_type="microvm", most_memory_mib=0))
    with pytest.raises(Unsupported) as caught:
        Host().reach(growth, 700)
    assert "microvm" in caught.value.why


@pytest.mark.parametrize(
    ("resources", "limit"),
    [({}, 0), ({"memory": None}, 0), ({"memory": {"limit": -1}}, 0), ({"memory": {"limit": 7}}, 7)],
)
def test_limits(resources, limit):
    """No limit is no promise."""
    assert limit_of(resources) == limit


def test_limits_add_up():
    """Containers may use all of their limits at a time, and the guest needs some beside."""
    assert needed_mib([]) == needed_mib([0, 0]) == 0
    assert needed_mib([100 * MIB, 100 * MIB + 1]) > 201
