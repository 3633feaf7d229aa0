"""Mount options as in fstab and OCI become flags."""

from __future__ import annotations

import pytest

from kata.linux import syscalls as sc
from kata.linux.mounts import parse


@pytest.mark.parametrize(
    ("options", "flags", "data"),
    [
        ([], 0, ""),
        (["ro", "nosuid", "nodev", "noexec"], 15, ""),
        (["ro", "rw"], 0, ""),
        (["rbind"], sc.MS_BIND | sc.MS_REC, ""),
        (["mode=755", "size=64k", "nosuid"], sc.MS_NOSUID, "mode=755,size=64k"),
        (["strictatime", "defaults"], sc.MS_STRICTATIME, ""),
        (["noauto", "_netdev", "x-thing"], 0, "x-thing"),
    ],
)
def test_flags_and_data(options, flags, data):
    """Known options are flags, the last one of a pair holds, the rest is the file system's."""
    found = parse(options)
    assert (found.flags, found.data) == (flags, data)


def test_what_was_cleared_is_remembered():
    """A bind mount with "rw" must be able to undo its source's "ro"."""
    assert parse(["rw", "exec"]).cleared == sc.MS_RDONLY | sc.MS_NOEXEC


def test_propagation_and_recursive_attributes():
    """Propagation is a list in order; recursive options are attributes to set and clear."""
    found = parse(["rslave", "shared", "rro", "rexec", "rnoatime"])
    assert found.propagation == (sc.MS_SLAVE | sc.MS_REC, sc.MS_SHARED)
    assert found.attributes == sc.MOUNT_ATTR_RDONLY | sc.MOUNT_ATTR_NOATIME
    assert found.attributes_cleared == sc.MOUNT_ATTR_NOEXEC | sc.MOUNT_ATTR_ATIME
    assert found.data == ""


def test_copy_up_is_no_data():
    """The option that is ours to do does not reach the kernel."""
    assert parse(["tmpcopyup"]).copy_up
    assert parse(["tmpcopyup"]).data == ""
