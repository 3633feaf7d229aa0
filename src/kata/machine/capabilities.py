"""What a kind of machine can do, asked before anything is started.

The one rule: everything that is missing is named in one error.
"""

from __future__ import annotations

from kata.errors import Unsupported
from kata.wire.record import fields, record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kata.machine.description import Machine


@record
class Capabilities:
    """Each field is an ability; its name, with blanks, is what people read."""

    file_share: bool = True
    template: bool = True
    generation_id: bool = True
    network: bool = True
    network_hotplug: bool = True
    memory_hotplug: bool = True
    block_hotplug: bool = True


BY_MACHINE_TYPE = {
    "pc": Capabilities(),
    # devices are plugged into root ports, and the only one is the file share's
    "q35": Capabilities(network_hotplug=False, block_hotplug=False),
    # no PCI: nothing can be plugged; no ACPI table for a generation id
    "microvm": Capabilities(
        file_share=False, generation_id=False, network_hotplug=False, memory_hotplug=False,
        block_hotplug=False,
    ),
}


def capabilities_of(machine: Machine) -> Capabilities:
    """What machines of this type can do. Raises ``Unsupported`` for an unknown type."""
    found = BY_MACHINE_TYPE.get(machine.machine_type)
    if found is None:
        raise Unsupported(
            f'unknown machine type "{machine.machine_type}"',
            hint="known are " + ", ".join(BY_MACHINE_TYPE),
        )
    return found


def require(machine: Machine, **needs: bool) -> None:
    """Raises ``Unsupported`` naming every ability that is needed and not there."""
    have = fields(capabilities_of(machine))
    missing = [n.replace("_", " ") for n, needed in needs.items() if needed and not have[n]]
    if missing:
        raise Unsupported(
            f'a machine of type "{machine.machine_type}" has no {" and no ".join(missing)}',
            hint='set machine_type to "pc"',
        )
