"""QEMU's command line for a machine: values in, words out.

The one rule: nothing is opened here. Descriptors have fixed numbers in the child, files of ours
have names that exist only in its root, so the same machine always gives the same words.
Source: qemu(1) and QEMU's docs/system, 7.2.
"""

from __future__ import annotations

from kata.errors import Unsupported
from kata.machine.description import (
    AGENT_PORT,
    SHARE_PATH,
    SHARE_TAG,
    disk_serial,
    mac_of,
    serial_of,
)
from kata.wire.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kata.machine.description import Machine

AGENT_FD, CONSOLE_FD, QMP_FD, STATE_FD, SHARE_FD, FIRST_DISK_FD = 3, 4, 5, 6, 7, 10
FIRST_TAP_FD, FIRST_VHOST_FD = 50, 60
MEMORY_PATH, KERNEL_PATH, INITRD_PATH = "/memory", "/kernel", "/initrd"
SHARE_PORT = "port0"  # root port of q35, for what is plugged later

# Larger than any disk: then a clone's disk can be any size and the guest need not be told. What is
# behind a node cannot be changed but below one of raw: ``slot_node``.
_EMPTY = (
    f"driver=raw,read-only=on,file.driver=null-co,file.size={1 << 42},file.read-only=on",
)  # fmt: skip
_PLUGGED_SETS = 100  # above the numbers of wired slots
_TRANSLATION_BUFFER_MIB = 256
_MACHINE_OPTIONS = {
    "pc": "pc,hpet=off,vmport=off,usb=off,smbus=off,sata=off",
    "q35": "q35,hpet=off,vmport=off,usb=off,smbus=off,sata=off",
    # without these two timers no guest comes up under emulation
    "microvm": "microvm,pit=on,pic=on,rtc=on,isa-serial=on,auto-kernel-cmdline=on",
}
_SANDBOX = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"


@record
class Wiring:
    """How one start differs from another of the same machine; none of it is seen by the guest.

    ``memory_file``: memory is the file at MEMORY_PATH, else fresh. ``restore``: device state comes
    at STATE_FD. ``disks``: (slot, read-only) of those that are bound. ``nics``: (slot, whether
    vhost-net moves its frames).
    """

    memory_file: bool = False
    restore: bool = False
    disks: tuple[tuple[int, bool], ...] = ()
    share: bool = False
    sandbox: bool = True
    nics: tuple[tuple[int, bool], ...] = ()


def arguments(machine: Machine, wiring: Wiring) -> list[str]:
    """The words after the program's name. Raises ``Unsupported`` for an unknown machine type."""
    if machine.machine_type not in _MACHINE_OPTIONS:
        raise Unsupported(f'QEMU has no machine type "{machine.machine_type}" that we know')
    words = ["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]
    words += _board(machine)
    words += _memory(machine, wiring)
    words += _channels(machine)
    words += _devices(machine, wiring)
    if wiring.share:
        words += ["-chardev", f"socket,id=share,fd={SHARE_FD}"]
    if wiring.restore:
        words += ["-incoming", "defer", "-S"]
    else:
        words += ["-S"]
        words += ["-kernel", KERNEL_PATH, "-initrd", INITRD_PATH, "-append", machine.command_line]
    if wiring.sandbox:
        words += ["-sandbox", _SANDBOX]
    return words


def _board(machine: Machine) -> list[str]:
    accelerator = machine.accelerator
    if accelerator == "tcg":
        accelerator += f",tb-size={_TRANSLATION_BUFFER_MIB}"
    options = _MACHINE_OPTIONS[machine.machine_type]
    if machine.machine_type == "microvm" and machine.accelerator == "tcg":
        options += ",acpi=off"  # with ACPI, and no clock of kvm, no timer is found
    words = ["-machine", f"{options},memory-backend=memory"]
    words += ["-accel", accelerator, "-cpu", machine.cpu_model]
    words += ["-smp", str(machine.vcpus), "-m", _size(machine)]
    if machine.machine_type == "q35":
        words += ["-device", f"pcie-root-port,id={SHARE_PORT},chassis=1,slot=1"]
    return words


def _size(machine: Machine) -> str:
    size = f"{machine.memory_mib}M"
    if machine.most_memory_mib > machine.memory_mib:
        size += f",slots={machine.memory_slots},maxmem={machine.most_memory_mib}M"
    return size


def _memory(machine: Machine, wiring: Wiring) -> list[str]:
    size = f"id=memory,size={machine.memory_mib}M"
    share = "on" if machine.shared_memory else "off"
    if wiring.memory_file:
        backend = f"memory-backend-file,{size},mem-path={MEMORY_PATH},share={share}"
    elif machine.shared_memory:
        backend = f"memory-backend-memfd,{size},share=on"
    else:
        backend = f"memory-backend-ram,{size}"
    return ["-object", backend]


def _channels(machine: Machine) -> list[str]:
    serial = _device(machine, "virtio-serial", "id=serial,max_ports=2")
    return [
        "-chardev", f"socket,id=qmp,fd={QMP_FD}", "-mon", "chardev=qmp,mode=control",
        "-chardev", f"socket,id=console,fd={CONSOLE_FD}", "-serial", "chardev:console",
        "-chardev", f"socket,id=agent,fd={AGENT_FD}", "-device", serial,
        "-device", f"virtserialport,bus=serial.0,chardev=agent,name={AGENT_PORT}",
    ]  # fmt: skip


def _devices(machine: Machine, wiring: Wiring) -> list[str]:
    words = []
    if machine.generation_id:
        words += ["-device", "vmgenid,guid=auto"]
    bound = {slot: _bound(slot, readonly) for slot, readonly in wiring.disks}
    for slot in range(machine.block_slots):
        words += _disk(machine, slot, bound.get(slot, _EMPTY))
    taps = dict(wiring.nics)
    for slot in range(machine.nic_slots):
        words += _card(machine, slot, taps.get(slot))
    if machine.share_slot:
        words += _wired_share(machine)
    return words


def _wired_share(machine: Machine) -> list[str]:
    """A share that QEMU serves itself: owners as they are, files of all mounts told apart."""
    files = f"local,id=share,path={SHARE_PATH},security_model=passthrough,multidevs=remap"
    device = _device(machine, "virtio-9p", f"id=share,fsdev=share,mount_tag={SHARE_TAG}")
    return ["-fsdev", files, "-device", device]


def _card(machine: Machine, slot: int, vhost: bool | None) -> list[str]:  # noqa: FBT001
    """A network card; ``vhost`` is None for one without a peer."""
    options = f"id=nic{slot},mac={mac_of(slot)}"
    if machine.machine_type != "microvm":
        options += ",romfile="
    if vhost is None:
        return ["-device", _device(machine, "virtio-net", options)]
    peer = f"tap,id=net{slot},fd={FIRST_TAP_FD + slot}"
    if vhost:
        peer += f",vhostfd={FIRST_VHOST_FD + slot}"
    device = _device(machine, "virtio-net", f"{options},netdev=net{slot}")
    return ["-netdev", peer, "-device", device]


def _disk(machine: Machine, slot: int, backend: tuple[str, ...]) -> list[str]:
    node = f"disk{slot}"
    *passed, driver = backend
    options = f"id=blk{slot},drive={node},serial={serial_of(slot)}"
    device = _device(machine, "virtio-blk", options)
    return [*passed, "-blockdev", f"node-name={node},{driver}", "-device", device]


def _bound(slot: int, readonly: bool) -> tuple[str, ...]:  # noqa: FBT001 (a pair of the wiring)
    flag = "on" if readonly else "off"
    driver = f"driver=file,filename=/dev/fdset/{slot},read-only={flag},locking=off"
    return ("-add-fd", f"fd={FIRST_DISK_FD + slot},set={slot}", driver)


def _device(machine: Machine, name: str, options: str) -> str:
    kind = "device" if machine.machine_type == "microvm" else "pci"
    return f"{name}-{kind},{options}"


def share_device(machine: Machine) -> dict[str, object]:
    """The arguments of ``device_add`` for the file share, whose chardev is already there."""
    bus = SHARE_PORT if machine.machine_type == "q35" else "pci.0"
    return {
        "driver": "vhost-user-fs-pci", "id": "share", "chardev": "share", "tag": SHARE_TAG,
        "bus": bus,
    }  # fmt: skip


def more_memory(machine: Machine, slot: int, mib: int) -> dict[str, object]:
    """The arguments of ``object-add`` for memory that is to be plugged."""
    kind = "memory-backend-memfd" if machine.shared_memory else "memory-backend-ram"
    backend: dict[str, object] = {"qom-type": kind, "id": f"memory{slot}", "size": mib << 20}
    return backend | ({"share": True} if machine.shared_memory else {})


def memory_device(slot: int) -> dict[str, object]:
    """The arguments of ``device_add`` for memory whose backend is already there."""
    return {"driver": "pc-dimm", "id": f"dimm{slot}", "memdev": f"memory{slot}"}


def disk_node(number: int, *, readonly: bool, is_device: bool) -> dict[str, object]:
    """The arguments of ``blockdev-add`` for a disk whose descriptor is in set ``disk_set``."""
    return {
        "driver": "host_device" if is_device else "file", "node-name": f"plugged{number}",
        "filename": f"/dev/fdset/{disk_set(number)}", "read-only": readonly, "locking": "off",
    }  # fmt: skip


def slot_file(slot: int) -> dict[str, object]:
    """The arguments of ``blockdev-add`` for a file to read whose descriptor is in set ``slot``."""
    return {
        "driver": "file", "node-name": f"file{slot}", "filename": f"/dev/fdset/{slot}",
        "read-only": True, "locking": "off",
    }  # fmt: skip


def slot_node(slot: int) -> dict[str, object]:
    """An option set of ``blockdev-reopen``: an empty wired disk gets the file that was added."""
    return {"driver": "raw", "node-name": f"disk{slot}", "read-only": True, "file": f"file{slot}"}


def disk_set(number: int) -> int:
    """The number of the set that holds a plugged disk's descriptor."""
    return _PLUGGED_SETS + number


def disk_device(number: int) -> dict[str, object]:
    """The arguments of ``device_add`` for a disk whose node is already there."""
    return {
        "driver": "virtio-blk-pci", "id": f"disk-{number}", "drive": f"plugged{number}",
        "serial": disk_serial(number), "bus": "pci.0",
    }  # fmt: skip


def nic_peer(slot: int, *, vhost: bool) -> dict[str, object]:
    """The arguments of ``netdev_add`` for a tap whose descriptors were passed."""
    peer: dict[str, object] = {"type": "tap", "id": f"net{slot}", "fd": f"tap{slot}"}
    return peer | ({"vhostfd": f"vhost{slot}"} if vhost else {})


def nic_device(slot: int) -> dict[str, object]:
    """The arguments of ``device_add`` for a network card, whose peer is already there."""
    return {
        "driver": "virtio-net-pci", "id": f"nic{slot}", "netdev": f"net{slot}",
        "mac": mac_of(slot), "bus": "pci.0", "romfile": "",
    }  # fmt: skip
