"""QEMU's command line, as text."""

from itertools import pairwise

import pytest

from kata.errors import Unsupported
from kata.hypervisors.interface import Bindings
from kata.hypervisors.qemu.arguments import (
    Wiring,
    arguments,
    disk_device,
    disk_node,
    disk_set,
    memory_device,
    more_memory,
    nic_device,
    nic_peer,
    share_device,
)
from kata.hypervisors.qemu.driver import wants_taps
from kata.machine.description import Machine, disk_serial
from kata.wire.record import replace

MACHINE = Machine(
    kernel="/host/vmlinux", initrd="/host/initrd", image_digest="d", command_line="quiet panic=-1",
    block_slots=2,
)  # fmt: skip

EMPTY = (
    "driver=raw,read-only=on,file.driver=null-co,file.size=4398046511104,file.read-only=on"
)
COLD = f"""\
-nodefaults -no-user-config -display none -no-reboot
-machine pc,hpet=off,vmport=off,usb=off,smbus=off,sata=off,memory-backend=memory
-accel tcg,tb-size=256 -cpu max -smp 1 -m 512M
-object memory-backend-ram,id=memory,size=512M
-chardev socket,id=qmp,fd=5 -mon chardev=qmp,mode=control
-chardev socket,id=console,fd=4 -serial chardev:console
-chardev socket,id=agent,fd=3 -device virtio-serial-pci,id=serial,max_ports=2
-device virtserialport,bus=serial.0,chardev=agent,name=kata.agent.0
-blockdev node-name=disk0,{EMPTY}
-device virtio-blk-pci,id=blk0,drive=disk0,serial=layer0
-blockdev node-name=disk1,{EMPTY}
-device virtio-blk-pci,id=blk1,drive=disk1,serial=layer1
-S -kernel /kernel -initrd /initrd -append"""


def option(words, name):
    """The values that follow every ``name``."""
    return [value for key, value in pairwise(words) if key == name]


def guest_side(words):
    """The words that a guest could tell apart."""
    hidden = ("-object", "-blockdev", "-add-fd", "-chardev", "-incoming", "-append", "-kernel",
              "-initrd", "-sandbox", "-netdev")  # fmt: skip
    kept, skip = [], False
    for word in words:
        if skip or word in hidden:
            skip = word in hidden
        elif word != "-S":
            kept.append(word.removesuffix(",netdev=net0"))
    return kept


def test_a_cold_start_in_full():
    """Every word of a cold start is known."""
    words = arguments(MACHINE, Wiring(sandbox=False))
    assert words == [*COLD.split(), "quiet panic=-1"]


def test_the_sandbox_denies_all_that_can_be_denied():
    """QEMU's own filter is on with every group denied."""
    [value] = option(arguments(MACHINE, Wiring()), "-sandbox")
    assert value == "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"


@pytest.mark.parametrize(("kind", "bus"), [("pc", "pci"), ("q35", "pci"), ("microvm", "device")])
def test_a_wired_share_is_the_same_in_every_start(kind, bus):
    """QEMU serves the directory of its root: owners as they are, all file systems told apart."""
    machine = replace(MACHINE, machine_type=kind, share_slot=True)
    for wiring in (Wiring(), Wiring(memory_file=True, restore=True)):
        words = arguments(machine, wiring)
        assert option(words, "-fsdev") == [
            "local,id=share,path=/shared,security_model=passthrough,multidevs=remap"
        ]
        assert option(words, "-device")[-1] == (
            f"virtio-9p-{bus},id=share,fsdev=share,mount_tag=kata"
        )
    assert "-fsdev" not in arguments(replace(machine, share_slot=False), Wiring())


@pytest.mark.parametrize("kind", ["pc", "q35", "microvm"])
def test_a_clone_looks_to_its_guest_as_its_template_did(kind):
    """Between template and clone only back ends differ, whatever is bound."""
    machine = replace(MACHINE, machine_type=kind, nic_slots=1)
    template = arguments(replace(machine, shared_memory=True), Wiring(memory_file=True))
    wiring = Wiring(memory_file=True, restore=True, disks=((1, True),), nics=((0, True),))
    assert guest_side(arguments(machine, wiring)) == guest_side(template)


def test_a_clone_loads_no_kernel():
    """The kernel is in the memory already: reading 60 MB again would be for nothing."""
    words = arguments(MACHINE, Wiring(memory_file=True, restore=True))
    assert "-kernel" not in words
    assert option(words, "-incoming") == ["defer"]


def test_a_template_s_memory_is_mapped_privately():
    """A clone maps the file with share=off, one that shares it with share=on."""
    wiring = Wiring(memory_file=True, restore=True)
    [memory] = option(arguments(MACHINE, wiring), "-object")
    assert memory == "memory-backend-file,id=memory,size=512M,mem-path=/memory,share=off"
    [memory] = option(arguments(replace(MACHINE, shared_memory=True), wiring), "-object")
    assert memory.endswith("share=on")


def test_fresh_memory_that_is_shared_is_a_memfd():
    """A cold start with a file share needs memory that the daemon can map."""
    [memory] = option(arguments(replace(MACHINE, shared_memory=True), Wiring()), "-object")
    assert memory == "memory-backend-memfd,id=memory,size=512M,share=on"


def test_disks_come_as_descriptors():
    """A bound slot is a descriptor set, never a path of the host; read-only where it says so."""
    words = arguments(MACHINE, Wiring(disks=((0, True), (1, False))))
    assert option(words, "-add-fd") == ["fd=10,set=0", "fd=11,set=1"]
    disks = option(words, "-blockdev")
    assert disks[0] == (
        "node-name=disk0,driver=file,filename=/dev/fdset/0,read-only=on,locking=off"
    )
    assert "read-only=off" in disks[1]


def test_no_path_of_the_host_is_ever_passed():
    """The guest image's paths are names in QEMU's own root."""
    for wiring in (Wiring(), Wiring(memory_file=True, restore=True, share=True)):
        assert not [word for word in arguments(MACHINE, wiring) if "/host" in word]


def test_what_is_plugged_later_has_a_place():
    """On pc it is the root bus, on q35 a port that takes plugging."""
    assert share_device(MACHINE)["bus"] == "pci.0"
    q35 = replace(MACHINE, machine_type="q35")
    bus = share_device(q35)["bus"]
    assert f"pcie-root-port,id={bus},chassis=1,slot=1" in arguments(q35, Wiring())


def test_a_machine_that_may_grow_has_room_and_slots():
    """What can be plugged later is announced from the start; a machine at its most has none."""
    growing = replace(MACHINE, most_memory_mib=4096)
    assert option(arguments(growing, Wiring()), "-m") == ["512M,slots=4,maxmem=4096M"]
    full = replace(MACHINE, most_memory_mib=512)
    assert option(arguments(full, Wiring()), "-m") == ["512M"]


def test_memory_plugged_later_is_shared_if_the_first_is():
    """The daemon of a file share must map all of it, or requests in the new memory fail."""
    alone = more_memory(MACHINE, 1, 256)
    assert alone == {"qom-type": "memory-backend-ram", "id": "memory1", "size": 256 << 20}
    shared = more_memory(replace(MACHINE, shared_memory=True), 1, 256)
    assert shared["qom-type"] == "memory-backend-memfd"
    assert shared["share"] is True
    assert memory_device(1)["memdev"] == shared["id"]


def test_a_disk_that_is_plugged_is_a_descriptor():
    """Node and device belong together, the set is none of a wired slot's, no path is ours."""
    node, device = disk_node(3, readonly=True, is_device=True), disk_device(3)
    assert node["filename"] == f"/dev/fdset/{disk_set(3)}" == "/dev/fdset/103"
    assert (node["driver"], node["read-only"]) == ("host_device", True)
    assert disk_node(3, readonly=False, is_device=False)["driver"] == "file"
    assert device["drive"] == node["node-name"]
    assert device["serial"] == disk_serial(3)


def test_microvm_has_no_pci():
    """Devices of a microvm are virtio-mmio, and both timers stay on."""
    words = arguments(replace(MACHINE, machine_type="microvm", nic_slots=1), Wiring())
    assert not [word for word in words if "-pci" in word]
    assert "pit=on,pic=on" in option(words, "-machine")[0]


def test_kvm_is_asked_for_plainly():
    """The translator's options do not leak into another accelerator."""
    assert option(arguments(replace(MACHINE, accelerator="kvm"), Wiring()), "-accel") == ["kvm"]


def test_an_unknown_machine_type_is_refused():
    """What is not known is not tried."""
    with pytest.raises(Unsupported, match="isapc"):
        arguments(replace(MACHINE, machine_type="isapc"), Wiring())


def test_a_card_has_a_tap_by_descriptor():
    """A bound slot is a descriptor, with vhost-net a second one; an unbound one has no peer."""
    machine = replace(MACHINE, nic_slots=3)
    words = arguments(machine, Wiring(nics=((0, False), (1, True))))
    assert option(words, "-netdev") == ["tap,id=net0,fd=50", "tap,id=net1,fd=51,vhostfd=61"]
    cards = [word for word in option(words, "-device") if word.startswith("virtio-net")]
    assert cards == [
        "virtio-net-pci,id=nic0,mac=02:00:00:00:00:01,romfile=,netdev=net0",
        "virtio-net-pci,id=nic1,mac=02:00:00:00:00:02,romfile=,netdev=net1",
        "virtio-net-pci,id=nic2,mac=02:00:00:00:00:03,romfile=",
    ]


def test_a_plugged_card_is_like_a_wired_one():
    """The same device with the same options, its tap known by the name it was passed under."""
    assert nic_peer(2, vhost=True) == {
        "type": "tap", "id": "net2", "fd": "tap2", "vhostfd": "vhost2",
    }  # fmt: skip
    assert "vhostfd" not in nic_peer(2, vhost=False)
    card = nic_device(2)
    wired = arguments(replace(MACHINE, nic_slots=3), Wiring())
    [text] = [word for word in option(wired, "-device") if "id=nic2" in word]
    assert text == (
        f"{card['driver']},id={card['id']},mac={card['mac']},romfile={card['romfile']}"
    )


@pytest.mark.parametrize(
    ("slots", "nics", "state", "wanted"),
    [
        (0, (), 3, False),
        (1, ((0, 7, -1),), 3, False),
        (1, (), 3, True),
        (1, ((1, 7, -1),), 3, True),
        (2, ((0, 7, -1),), 3, True),
        (1, (), -1, False),
    ],
)
def test_a_copy_needs_the_taps_of_its_template(slots, nics, state, wanted):
    """Each card of a restored machine has a tap; a cold boot may go without."""
    machine = replace(MACHINE, nic_slots=slots)
    assert wants_taps(machine, Bindings(state=state, nics=nics)) is wanted
