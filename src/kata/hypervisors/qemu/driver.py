"""QEMU: start, restore, watch, freeze and stop a virtual machine.

The one rule: QEMU is given descriptors, never paths of ours; when the guest runs its root is empty.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kata.hypervisors.interface import Bindings, Options, Vm
    from kata.machine.description import Machine


def start(machine: Machine, bindings: Bindings, options: Options) -> Vm:
    """Spawn QEMU and return at once; ``Vm.wait_ready`` does the rest. Raises ``HostError``."""
    raise NotImplementedError
