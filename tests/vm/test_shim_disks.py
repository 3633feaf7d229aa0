"""Root file systems on block devices: plugged into the machine, mounted by the guest."""

import subprocess

import pytest

from kata.errors import KataError
from kata.wire.containerd_types import Mount
from support.containerd import finish, member, pod, simple, until_end


@pytest.fixture
def disk(containerd, tmp_path):
    """Makes disks with the file system of all: a file's path, or a device's."""
    devices = []

    def make(name: str, *, device: bool) -> str:
        path = f"{tmp_path}/{name}.ext4"
        command = ["mke2fs", "-q", "-t", "ext4", "-d", containerd.rootfs, path, "48M"]
        subprocess.run(command, check=True)
        if not device:
            return path
        found = subprocess.run(
            ["losetup", "--find", "--show", path], check=True, capture_output=True, text=True
        ).stdout.strip()
        devices.append(found)
        return found

    yield make
    for found in devices:
        subprocess.run(["losetup", "--detach", found], check=True)


@pytest.mark.parametrize("device", [True, False], ids=["device", "file"])
def test_a_root_on_a_disk_is_the_guest_s_to_mount(containerd, disk, device):
    """The host mounts nothing: the container has the disk itself, and what it writes stays."""
    source = disk("root", device=device)
    path, reader = containerd.fifo("out")
    shim = simple(
        containerd, "box", "sh", "-c", "sed -n '/ \\/ /p' /proc/mounts; echo it >/kept",
        rootfs=Mount(type="ext4", source=source, options=["rw"]), stdout=path,
    )  # fmt: skip
    with open("/proc/self/mounts", encoding="utf-8") as file:
        assert source not in file.read()
    shim.of("Start", "box")
    assert shim.of("Wait", "box").exit_status == 0
    assert until_end(reader).split()[2] == b"ext4"
    finish(shim, "box")
    shown = subprocess.run(["debugfs", "-R", "cat /kept", source], capture_output=True, check=True)
    assert shown.stdout == b"it\n"


def test_disks_of_a_pod_come_and_go(containerd, disk):
    """Each container of a pod has its own; one that was deleted is the host's again."""
    shim = pod(containerd)
    for name in ("one", "two", "three"):
        source = disk(name, device=True)
        root = Mount(type="ext4", source=source)
        member(containerd, shim, name, "sh", "-c", f"echo {name} >/kept", rootfs=root)
        shim.of("Start", name)
        assert shim.of("Wait", name).exit_status == 0
        shim.of("Delete", name)
        subprocess.run(["e2fsck", "-fn", source], check=True, capture_output=True)
        shown = subprocess.run(
            ["debugfs", "-R", "cat /kept", source], capture_output=True, check=True
        )
        assert shown.stdout == f"{name}\n".encode()
    finish(shim, "pod")


def test_a_disk_that_is_none(containerd, disk):
    """What no file system is on is refused by Create, with its name, and nothing is left."""
    source = disk("root", device=False)
    with open(source, "r+b") as file:
        file.write(bytes(1 << 20))
    containerd.bundle("box", "true")
    shim = containerd.start("box")
    with pytest.raises(KataError, match="storage"):
        containerd.create(shim, "box", rootfs=Mount(type="ext4", source=source))
    shim.of("Shutdown", "box")
    containerd.delete("box")
