"""Which root file systems the guest mounts itself."""

import os

import pytest

from kata.shim.rootfs import for_guest
from kata.wire.containerd_types import Mount


@pytest.fixture
def disk(tmp_path):
    """A file that could be a disk."""
    path = str(tmp_path / "disk")
    with open(path, "wb") as file:
        file.write(bytes(4096))
    return path


def test_a_disk_is_the_guest_s(disk):
    """The words for a loop device are the host's."""
    found = for_guest([Mount(type="ext4", source=disk, options=["loop", "ro"])])
    assert (found.type, found.source, found.options) == ("ext4", disk, ["ro"])


def test_what_is_the_host_s(disk, tmp_path):
    """Several mounts, a place below the root, other file systems, what is no disk."""
    other = Mount(type="bind", source=str(tmp_path), options=["rbind"])
    for wanted in (
        [], [other], [Mount(type="ext4", source=disk), other],
        [Mount(type="ext4", source=disk, target="/below")], [Mount(type="xfs", source=disk)],
        [Mount(type="ext4", source=str(tmp_path))], [Mount(type="ext4", source=f"{disk}.none")],
        [Mount(type="ext4", source=os.devnull)],
    ):  # fmt: skip
        assert for_guest(wanted) is None
