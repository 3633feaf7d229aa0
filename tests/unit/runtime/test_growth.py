"""Memory for what containers may use: how much, when, and what is refused."""

import pytest

from kata.errors import HypervisorError, Unsupported
from kata.machine.description import Machine
from kata.resources.plan import for_machine, memory_limit
from kata.runtime.growth import Growth, needed_mib
from kata.wire.agent_api import StatsResponse
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

    def call(self, method, request):
        """The agent's."""
        assert (method, request.container_id) == ("Stats", "")
        return StatsResponse(guest_memory_total=self.total)

    def limit(self, limits):
        """The control group's."""
        self.done.append(("group", limits.memory))


def grown(host, machine=MACHINE):
    """The memory of a machine on a host."""
    return Growth(machine, host, host, host)


def group(mib):
    """What is noted when the group is made to hold a machine of so much."""
    return ("group", for_machine(mib).memory)


def test_what_is_there_is_not_plugged():
    """A machine that has enough stays as it is."""
    host = Host()
    growth = grown(host)
    growth.reach(512)
    assert host.done == []


def test_the_group_grows_before_the_machine():
    """The host's limit is raised first: the VMM must never meet the old one."""
    host = Host()
    growth = grown(host)
    growth.reach(700)
    growth.reach(1500)
    assert host.done == [group(1024), ("plug", 0, 512), group(2048), ("plug", 1, 1024)]
    assert growth.memory_mib == 2048


def test_a_refused_plug_changes_nothing():
    """Group and books are as before."""
    host = Host(refuses=True)
    growth = grown(host)
    with pytest.raises(HypervisorError, match="device_add"):
        growth.reach(700)
    assert host.done == [group(1024), group(512)]
    assert growth.memory_mib == 512


def test_more_than_the_host_has_is_bounded():
    """A limit is no reservation: the machine gets what there is, and then stays."""
    host = Host()
    growth = grown(host)
    growth.reach(90_000)
    assert growth.memory_mib == 4096
    growth.reach(90_000)
    assert len(host.done) == 2


def test_slots_come_to_an_end():
    """The fifth step is refused, with what to do instead."""
    host = Host()
    growth = grown(host, replace(MACHINE, most_memory_mib=1 << 20))
    for wanted in (700, 1500, 3000, 5000):
        growth.reach(wanted)
    with pytest.raises(Unsupported, match="has 6144 MiB, the limits together need 7000") as caught:
        growth.reach(7000)
    assert "4 times" in caught.value.why
    assert "start" in caught.value.hint


def test_a_machine_that_cannot_grow_says_so():
    """microvm has no slots."""
    growth = grown(Host(), replace(MACHINE, machine_type="microvm", most_memory_mib=0))
    with pytest.raises(Unsupported) as caught:
        growth.reach(700)
    assert "microvm" in caught.value.why


@pytest.mark.parametrize(
    ("resources", "limit"),
    [({}, 0), ({"memory": None}, 0), ({"memory": {"limit": -1}}, 0), ({"memory": {"limit": 7}}, 7)],
)
def test_limits(resources, limit):
    """No limit is no promise."""
    assert memory_limit(resources) == limit


def test_limits_add_up():
    """Containers may use all of their limits at a time, and the guest needs some beside."""
    assert needed_mib([]) == needed_mib([0, 0]) == 0
    assert needed_mib([100 * MIB, 100 * MIB + 1]) > 201
