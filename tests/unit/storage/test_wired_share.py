"""Who serves a share, and what a share that the VMM serves asks of guest and host."""

import pytest

from kata.storage.choice import chosen
from kata.storage.plan import Directory, Ids, Limits, plan
from kata.storage.trees import FILE_RIGHTS, with_server

MISSING = "/nonexistent/virtiofsd"


@pytest.mark.parametrize(
    ("kind", "daemon", "served"),
    [
        ("auto", "/bin/true", "virtio-fs"), ("auto", MISSING, "virtio-9p"),
        ("virtio-fs", MISSING, "virtio-fs"), ("virtio-9p", "/bin/true", "virtio-9p"),
        ("none", MISSING, "none"),
    ],
)  # fmt: skip
def test_the_vmm_serves_where_nobody_else_can(kind, daemon, served):
    """Left open, a daemon does it, and QEMU where there is none; what is said is done."""
    assert chosen(kind, daemon) == served


def test_the_guest_mounts_it_by_9p():
    """The first container with shares mounts it, remembering nothing but what is mapped."""
    share, root = plan("c", Directory("/srv"), limits=Limits(wired_share=True)).storages
    assert (share.driver, share.source, share.mount_point) == ("9p", "kata", "/run/kata/shared")
    assert share.options == ["trans=virtio", "version=9p2000.L", "cache=mmap", "msize=512000"]
    assert root.source == "/run/kata/shared/c-rootfs"


def test_rights_over_files_are_no_others():
    """Owners, modes and nodes; nobody else's identity, and no capabilities to give to programs."""
    names = [n for n in range(64) if FILE_RIGHTS >> n & 1]
    assert names == [0, 1, 3, 4, 27]  # CHOWN, DAC_OVERRIDE, FOWNER, FSETID, MKNOD


MAP = ((0, 1000, 5),)


@pytest.mark.parametrize(
    ("entries", "server", "mapped"),
    [
        (MAP, 2000, (*MAP, (2000, 2000, 1))), (MAP, 0, MAP), (MAP, 3, MAP), (MAP, 1004, MAP),
        (MAP, 1005, (*MAP, (1005, 1005, 1))),
    ],
)  # fmt: skip
def test_who_serves_an_id_mapped_mount_is_in_its_map(entries, server, mapped):
    """It makes files as itself first: the map has room for it, if nothing else is there."""
    found = with_server(Ids(entries, entries, recursive=True), server)
    assert (found.uids, found.gids, found.recursive) == (mapped, mapped, True)
