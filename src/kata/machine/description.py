"""A virtual machine described in no hypervisor's words.

The one rule: values only. Descriptors, sockets and paths of one particular start are bound to it
elsewhere (``hypervisors.interface.Bindings``), so that a machine can be compared, hashed, printed,
and be the key of a template.
"""

from __future__ import annotations

from kata.wire.agent_api import CARD_PREFIX, DISK_PREFIX
from kata.wire.record import fields, record

AGENT_PORT = "kata.agent.0"  # name of the virtio-serial port of the agent's channel
SHARE_TAG = "kata"  # tag of the file share
SHARE_PATH = "/shared"  # where whoever serves it has it, in a root of its own
_HOST_SIDE = frozenset(("kernel", "initrd", "shared_memory"))


@record
class Machine:
    """What the guest sees, and how its memory is held.

    ``kernel`` and ``initrd`` are host paths, ``image_digest`` their content's identity;
    ``block_slots`` disks named ``layer0``… are wired, empty until bound, ``nic_slots`` network
    cards (``mac_of``) that every start has to give a tap; with
    ``share_slot`` a file share that the VMM serves itself (9p), empty until it is given something;
    ``generation_id`` a device that tells a
    clone's kernel that it is one (the agent's first call reseeds it anyway); ``shared_memory``
    lets another process map the memory. ``most_memory_mib``: what its memory may grow to, in
    ``memory_slots`` steps; 0: it does not grow.
    ``prepared`` identifies the root file system that its parked container has made already.
    """

    kernel: str
    initrd: str
    image_digest: str
    command_line: str
    machine_type: str = "pc"
    accelerator: str = "tcg"
    cpu_model: str = "max"
    vcpus: int = 1
    memory_mib: int = 512
    memory_slots: int = 4
    most_memory_mib: int = 0
    block_slots: int = 4
    nic_slots: int = 0
    share_slot: bool = False
    generation_id: bool = False
    shared_memory: bool = False
    prepared: str = ""


def serial_of(slot: int) -> str:
    """The serial number by which the guest finds the disk in ``slot``."""
    return f"layer{slot}"


def disk_serial(number: int) -> str:
    """The serial number by which the guest finds a disk that is plugged."""
    return f"{DISK_PREFIX}{number}"


def mac_of(slot: int) -> str:
    """The MAC address by which the guest finds the network card in ``slot``; it gets another."""
    return f"{CARD_PREFIX}{slot + 1:02x}"


def guest_visible(machine: Machine) -> dict[str, object]:
    """The fields a template depends on: all but how the host side is arranged."""
    return {name: value for name, value in fields(machine).items() if name not in _HOST_SIDE}
