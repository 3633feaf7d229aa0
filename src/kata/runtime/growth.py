"""A running virtual machine that gets more memory, for what its containers may use now.

The rule: limits are promises. Before a container's limit is set, its machine has that much, or all
that the host can give; where it cannot grow that is refused, and nothing is changed. It never
shrinks: a guest seldom frees what would have to go.
"""

from __future__ import annotations

import time

from kata.errors import HypervisorError, Unsupported
from kata.machine.capabilities import capabilities_of
from kata.machine.sizing import growth, memory_for
from kata.resources.plan import for_machine
from kata.wire.agent_api import ContainerRequest, StatsResponse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from kata.hypervisors.interface import Vm
    from kata.machine.description import Machine
    from kata.resources.group import Group
    from kata.runtime.rpc import Client

_ONLINE_TIMEOUT_S = 20.0
_LOOK_S = 0.01


def needed_mib(limits: Iterable[int]) -> int:
    """What a machine must have for containers with these limits (bytes), in MiB."""
    together = sum(limits)
    return memory_for(-(-together >> 20)) if together else 0


class Growth:
    """The memory of one machine: what it has, and how it gets more."""

    def __init__(self, machine: Machine, vm: Vm, client: Client, group: Group | None) -> None:
        self._machine = machine
        self._vm, self._client, self._group = vm, client, group
        self.memory_mib = machine.memory_mib
        self._plugged = 0

    def reach(self, wanted_mib: int) -> None:
        """Have ``wanted_mib`` or more.

        Raises ``Unsupported`` for a machine that cannot have so much, ``HypervisorError``.
        """
        if wanted_mib <= self.memory_mib:
            return
        added = growth(self.memory_mib, wanted_mib, self._machine.most_memory_mib)
        self._check(wanted_mib)
        if added <= 0:
            return  # limits are no reservations: engines are given some above what a host has
        seen = self._guest_total()
        self._resize_group(self.memory_mib + added)
        try:
            self._vm.plug_memory(self._plugged, added)
        except HypervisorError:
            self._resize_group(self.memory_mib)
            raise
        self._plugged += 1
        self.memory_mib += added
        end = time.monotonic() + _ONLINE_TIMEOUT_S
        while self._guest_total() < seen + (added << 20):
            if time.monotonic() > end:
                raise HypervisorError(
                    f"the guest does not take {added} MiB more memory",
                    why=f"after {_ONLINE_TIMEOUT_S:g} s it does not use them",
                )
            time.sleep(_LOOK_S)

    def _guest_total(self) -> int:
        """How much the guest sees, bytes."""
        answer = self._client.call("Stats", ContainerRequest(container_id=""))
        assert isinstance(answer, StatsResponse)
        return answer.guest_memory_total

    def _resize_group(self, memory_mib: int) -> None:
        """What the host lets the VMM use follows its size."""
        if self._group is not None:
            self._group.limit(for_machine(memory_mib))

    def _check(self, wanted_mib: int) -> None:
        machine, why = self._machine, ""
        if not (capabilities_of(machine).memory_hotplug and machine.most_memory_mib):
            why = f'a machine of type "{machine.machine_type}" does not grow'
        elif self._plugged == machine.memory_slots:
            why = f"it has grown {machine.memory_slots} times, more often it cannot"
        if why:
            raise Unsupported(
                f"its virtual machine has {self.memory_mib} MiB, the limits together need "
                f"{wanted_mib} MiB", why=why,
                hint="start the container, or its pod, with the limits that it will need",
            )  # fmt: skip
