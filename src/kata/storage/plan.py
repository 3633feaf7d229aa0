"""What a container's files are, and how they reach the guest: values in, a frozen plan out.

The one rule: pure. Whoever carries a plan out (``share``, the hypervisor's driver, the agent) adds
nothing to it; sources have been looked at before (``sources.pin``).

Layers are read-only block devices under an overlay in the guest; directories and files of the
host go through one share. Sources: Documentation/filesystems/{overlayfs,erofs,tmpfs}.rst,
OCI runtime-spec config.md "Mounts".
"""

from __future__ import annotations

from kata.errors import InvalidInput, Unsupported
from kata.machine.description import SHARE_TAG, disk_serial
from kata.wire.agent_api import Storage
from kata.wire.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any

    from kata.wire.agent_api import Node

SHARED = "/run/kata/shared"  # where the guest has the share
# nothing is remembered but what is mapped; the largest messages that virtio's queue has room for
_WIRED_OPTIONS = ("trans=virtio", "version=9p2000.L", "cache=mmap", "msize=512000")
_LAYERS = "/run/kata/layers"  # short: all of an overlay's lower directories must fit in a page
_CONTAINERS = "/run/kata/containers"
_PAGE = 4096
_KERNEL_LAYERS = 500  # OVL_MAX_STACK
# of Docker's volume syntax, or settled by the plan itself: nothing for a mount in the guest
_HOST_ONLY = frozenset((
    "bind", "rbind", "ro", "rw", "rro", "z", "Z", "U", "nocopy", "copy", "consistent", "cached",
    "delegated", "idmap", "ridmap",
))  # fmt: skip


@record
class Ids:
    """How an id-mapped mount shows owners: maps of users and groups as ``linux/users`` has them.

    ``recursive``: on the mounts below it too.
    """

    uids: tuple[tuple[int, int, int], ...]
    gids: tuple[tuple[int, int, int], ...]
    recursive: bool = False


@record
class Volume:
    """A file or directory of the host (absolute ``source``) seen at ``destination``.

    ``options`` are those of an OCI bind mount; ``ro`` among them counts as ``readonly``.
    ``ids`` are what its files' owners are mapped by, on the host. ``copy`` is what is in it, if
    it is to be copied (``may_be_copied``) and was small enough. ``fresh``: the source is a mount
    that was made for it alone, and that nobody else sees.
    """

    source: str
    destination: str
    readonly: bool = False
    is_directory: bool = True
    options: tuple[str, ...] = ()
    ids: Ids | None = None
    copy: tuple[Node, ...] | None = None
    fresh: bool = False


@record
class Directory:
    """A root file system that is a directory of the host."""

    source: str
    readonly: bool = False


@record
class Disk:
    """A root file system on a block device, or in a file, that the guest mounts itself.

    ``number`` tells those of one machine apart.
    """

    path: str
    number: int
    fstype: str
    options: tuple[str, ...] = ()


@record
class Layer:
    """An image layer to attach as the read-only disk ``serial``; ``wired``: its slot exists."""

    name: str
    serial: str
    path: str
    slot: int
    wired: bool


@record
class Share:
    """A file or directory of the host under ``name`` in the share; or beside it, as a ``copy``."""

    source: str
    name: str
    readonly: bool
    is_directory: bool
    recursive: bool = True
    ids: Ids | None = None
    copy: tuple[Node, ...] | None = None
    fresh: bool = False


@record
class Limits:
    """What the machine and the sandbox leave: free ``first_slot``, ``wired_slots``, memory.

    ``scratch_bytes`` bounds what a container may write to its root (0: half of the guest's
    memory); ``wired_share``: the VMM serves the share itself; ``share_mounted`` is set for all
    but the first plan with shares of a sandbox.
    """

    wired_slots: int = 8
    first_slot: int = 0
    scratch_bytes: int = 0
    share_mounted: bool = False
    wired_share: bool = False


@record
class Plan:
    """``root`` and ``mounts`` go into the guest's OCI configuration, ``storages`` to the agent."""

    root: str
    layers: tuple[Layer, ...]
    shares: tuple[Share, ...]
    storages: tuple[Storage, ...]
    mounts: tuple[dict[str, Any], ...]
    disks: tuple[Disk, ...] = ()


def plan(
    container_id: str,
    rootfs: Sequence[str] | Directory | Disk,
    volumes: Iterable[Volume] = (),
    limits: Limits = Limits(),  # noqa: B008 (frozen)
) -> Plan:
    """The plan for one container; ``rootfs`` is EROFS layers (lowest first), a directory, a disk.

    Raises ``InvalidInput`` for a request without sense, ``Unsupported`` for too many layers.
    """
    if "/" in container_id or container_id in ("", ".", ".."):
        raise InvalidInput(f'container id "{container_id}"', why="not a name for a directory")
    home = f"{_CONTAINERS}/{container_id}"
    shares, mounts = _volumes(container_id, volumes)
    layers: tuple[Layer, ...] = ()
    disks: tuple[Disk, ...] = ()
    if isinstance(rootfs, Disk):
        disks = (rootfs,)
        storages = [
            Storage(
                driver="blk", source=disk_serial(rootfs.number), fstype=rootfs.fstype,
                options=list(rootfs.options), mount_point=f"{home}/rootfs",
            )
        ]  # fmt: skip
    elif isinstance(rootfs, Directory):
        _absolute("root file system", rootfs.source)
        root = Share(rootfs.source, f"{container_id}-rootfs", rootfs.readonly, is_directory=True)
        shares.insert(0, root)
        storages = [_bind(f"{SHARED}/{root.name}", f"{home}/rootfs")]
    else:
        layers = _layers(rootfs, limits)
        storages = _overlay(layers, home, limits.scratch_bytes)
    if shares and not limits.share_mounted:
        storages.insert(0, share_storage(wired=limits.wired_share))
    return Plan(f"{home}/rootfs", layers, tuple(shares), tuple(storages), tuple(mounts), disks)


def _volumes(
    container_id: str, volumes: Iterable[Volume]
) -> tuple[list[Share], list[dict[str, Any]]]:
    shares, mounts = [], []
    for number, volume in enumerate(volumes):
        _absolute("volume", volume.source)
        _absolute("volume destination", volume.destination)
        readonly = _is_readonly(volume)
        recursive = "bind" not in volume.options or "rbind" in volume.options
        name = f"{container_id}-{number}"
        shares.append(
            Share(
                volume.source, name, readonly, volume.is_directory, recursive, volume.ids,
                volume.copy if may_be_copied(volume) else None, volume.fresh,
            )
        )  # fmt: skip
        options = ["rbind" if recursive else "bind"]
        options += ["ro"] if readonly else []
        options += [o for o in volume.options if o not in _HOST_ONLY]
        mounts.append({
            "destination": volume.destination, "type": "bind", "source": f"{SHARED}/{name}",
            "options": options,
        })  # fmt: skip
    return shares, mounts


def _is_readonly(volume: Volume) -> bool:
    return volume.readonly or "ro" in volume.options or "rro" in volume.options


def may_be_copied(volume: Volume) -> bool:
    """Whether a copy in the guest can stand for a volume: nobody inside may write to it."""
    ours = volume.ids is not None or volume.fresh
    return volume.is_directory and not ours and _is_readonly(volume)


def _absolute(what: str, path: str) -> None:
    if not path.startswith("/"):
        raise InvalidInput(f'{what} "{path}"', why="not an absolute path")
    if "\0" in path:
        raise InvalidInput(f"{what} {path!r}", why="holds a zero byte")


def _layers(paths: Sequence[str], limits: Limits) -> tuple[Layer, ...]:
    if not paths:
        raise InvalidInput("the image", why="it has no layers")
    result = []
    for slot, path in enumerate(paths, limits.first_slot):
        _absolute("image layer", path)
        name = f"layer{slot}"
        result.append(Layer(name, name, path, slot, wired=slot < limits.wired_slots))
    return tuple(result)


def _overlay(layers: Sequence[Layer], home: str, scratch_bytes: int) -> list[Storage]:
    """Storages that mount every layer, a bounded tmpfs, and the overlay of all at the root."""
    storages = [
        Storage(
            driver="blk", source=layer.serial, fstype="erofs", options=["ro"],
            mount_point=f"{_LAYERS}/{layer.slot}",
        )
        for layer in layers
    ]  # fmt: skip
    scratch = f"{home}/scratch"
    storages.append(
        Storage(
            driver="tmpfs", source="tmpfs", fstype="tmpfs", mount_point=scratch,
            options=[f"size={scratch_bytes}" if scratch_bytes else "size=50%", "mode=755"],
        )
    )  # fmt: skip
    lower = ":".join(s.mount_point for s in storages[-2::-1])  # topmost first
    options = [f"lowerdir={lower}", f"upperdir={scratch}/upper", f"workdir={scratch}/work"]
    if len(layers) > _KERNEL_LAYERS or len(",".join(options)) >= _PAGE:
        raise Unsupported(
            f"an image of {len(layers)} layers", why="their names do not fit in a mount option",
            hint="squash the image",
        )  # fmt: skip
    storages.append(
        Storage(
            driver="overlay", source="overlay", fstype="overlay", options=options,
            mount_point=f"{home}/rootfs",
        )
    )  # fmt: skip
    return storages


def _bind(source: str, target: str) -> Storage:
    return Storage(driver="bind", source=source, options=["rbind"], mount_point=target)


def share_storage(*, wired: bool = False) -> Storage:
    """The share itself, once in a sandbox: with the container that is there the longest."""
    if wired:
        return Storage(
            driver="9p", source=SHARE_TAG, fstype="9p", mount_point=SHARED,
            options=list(_WIRED_OPTIONS),
        )  # fmt: skip
    return Storage(
        driver="virtio-fs", source=SHARE_TAG, fstype="virtiofs", mount_point=SHARED,
    )  # fmt: skip
