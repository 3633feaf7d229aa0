"""The watch over mounts does see them."""

from kata.linux.syscalls import MNT_DETACH, mount, umount
from support import leaks


def test_a_mount_below_our_directories_is_seen(directory, tmp_path):
    """A mount below a directory of ours is counted, and one elsewhere is not."""
    before = leaks.mine([directory], pure=False)
    mount("none", directory, "tmpfs")
    try:
        new = leaks.mine([directory], pure=False) - before
        assert len(new) == 1
        assert f" {directory} " in new.pop()
        assert not leaks.mounts([str(tmp_path)])
    finally:
        umount(directory, MNT_DETACH)
    assert leaks.left(before, [directory], pure=False) == []
