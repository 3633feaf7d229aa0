"""The storage plan: values in, a plan out; nothing here touches the host."""

from __future__ import annotations

import pytest

from kata.errors import InvalidInput, Unsupported
from kata.storage.plan import Directory, Ids, Limits, Share, Volume, plan
from kata.wire.agent_api import Node, Storage


def layers(count):
    return [f"/images/{i}.erofs" for i in range(count)]


def test_layers_become_disks_and_one_overlay_with_the_topmost_first():
    """Every layer is mounted read-only by its serial; the overlay names the topmost layer first."""
    p = plan("c1", layers(3))
    assert [(x.serial, x.path, x.slot, x.wired) for x in p.layers] == [
        ("layer0", "/images/0.erofs", 0, True),
        ("layer1", "/images/1.erofs", 1, True),
        ("layer2", "/images/2.erofs", 2, True),
    ]
    disks, scratch, overlay = p.storages[:3], p.storages[3], p.storages[4]
    assert [(s.driver, s.source, s.fstype, s.options, s.mount_point) for s in disks] == [
        ("blk", f"layer{i}", "erofs", ["ro"], f"/run/kata/layers/{i}") for i in range(3)
    ]
    assert (scratch.driver, scratch.mount_point) == ("tmpfs", "/run/kata/containers/c1/scratch")
    assert overlay.mount_point == p.root == "/run/kata/containers/c1/rootfs"
    assert overlay.options == [
        "lowerdir=/run/kata/layers/2:/run/kata/layers/1:/run/kata/layers/0",
        "upperdir=/run/kata/containers/c1/scratch/upper",
        "workdir=/run/kata/containers/c1/scratch/work",
    ]
    assert not p.shares
    assert not p.mounts


@pytest.mark.parametrize(("size", "option"), [(0, "size=50%"), (1 << 20, "size=1048576")])
def test_what_a_container_may_write_is_bounded(size, option):
    """The tmpfs under the overlay always has a size."""
    tmpfs = plan("c", layers(1), limits=Limits(scratch_bytes=size)).storages[1]
    assert tmpfs.options == [option, "mode=755"]


def test_layers_beyond_the_wired_slots_are_marked():
    """Layers that find no wired slot say so: they have to be plugged in."""
    p = plan("c", layers(4), limits=Limits(wired_slots=3, first_slot=1))
    assert [(x.slot, x.wired) for x in p.layers] == [(1, True), (2, True), (3, False), (4, False)]


def test_many_layers_fit_in_a_mount_option_and_too_many_are_refused():
    """127 layers (Docker's limit) fit in the page the kernel takes; what does not is refused."""
    p = plan("c" * 64, layers(127))
    assert len(",".join(p.storages[-1].options)) < 4096
    with pytest.raises(Unsupported, match="250 layers"):
        plan("c", layers(250))


def test_a_directory_is_bound_from_the_share():
    """A directory as root goes by the share, first in it, and needs no disk."""
    p = plan("c", Directory("/srv/root", readonly=True))
    assert p.shares == (Share("/srv/root", "c-rootfs", readonly=True, is_directory=True),)
    assert p.storages == (
        Storage(
            driver="virtio-fs", source="kata", fstype="virtiofs", mount_point="/run/kata/shared"
        ),
        Storage(
            driver="bind", source="/run/kata/shared/c-rootfs", options=["rbind"], mount_point=p.root
        ),
    )
    assert not p.layers


def test_the_share_is_mounted_once_in_a_sandbox():
    """The second container of a sandbox does not mount the share again."""
    p = plan("c", Directory("/srv"), limits=Limits(share_mounted=True))
    assert [s.driver for s in p.storages] == ["bind"]


def test_volumes_become_shares_and_mounts_from_the_share():
    """Each volume is shared under a name of its own, which the container's mount then names."""
    volumes = (
        Volume("/data", "/data"),
        Volume("/etc/hosts", "/etc/hosts", readonly=True, is_directory=False),
        Volume("/x", "/y", options=("bind", "ro", "rslave", "z", "noexec")),
    )
    p = plan("c", layers(1), volumes)
    assert p.shares == (
        Share("/data", "c-0", readonly=False, is_directory=True),
        Share("/etc/hosts", "c-1", readonly=True, is_directory=False),
        Share("/x", "c-2", readonly=True, is_directory=True, recursive=False),
    )
    assert p.mounts == (
        {
            "destination": "/data", "type": "bind", "source": "/run/kata/shared/c-0",
            "options": ["rbind"],
        },
        {
            "destination": "/etc/hosts", "type": "bind", "source": "/run/kata/shared/c-1",
            "options": ["rbind", "ro"],
        },
        {
            "destination": "/y", "type": "bind", "source": "/run/kata/shared/c-2",
            "options": ["bind", "ro", "rslave", "noexec"],
        },
    )  # fmt: skip
    assert p.storages[0].driver == "virtio-fs"


@pytest.mark.parametrize(
    "make",
    [
        lambda: plan("../c", layers(1)),
        lambda: plan("", layers(1)),
        lambda: plan("c", []),
        lambda: plan("c", ["relative.erofs"]),
        lambda: plan("c", Directory("relative")),
        lambda: plan("c", layers(1), [Volume("relative", "/x")]),
        lambda: plan("c", layers(1), [Volume("/x", "relative")]),
        lambda: plan("c", layers(1), [Volume("/x\0y", "/x")]),
    ],
)
def test_requests_without_sense_are_refused(make):
    """Names that are paths, no layers, relative paths: refused before anything is done."""
    with pytest.raises(InvalidInput):
        make()


@pytest.mark.parametrize(
    ("how", "copied"),
    [
        ({"options": ("ro",)}, True), ({"readonly": True}, True), ({"options": ("rro",)}, True),
        ({}, False), ({"options": ("rw",)}, False),
        ({"readonly": True, "is_directory": False}, False),
        ({"readonly": True, "ids": Ids((), ())}, False),
    ],
)  # fmt: skip
def test_only_what_nobody_writes_to_is_copied(how, copied):
    """A copy stands for a read-only directory whose owners are as they are."""
    node = Node(mode=0o40755)
    (share,) = plan("c", layers(1), [Volume("/s", "/d", copy=(node,), **how)]).shares
    assert share.copy == ((node,) if copied else None)
