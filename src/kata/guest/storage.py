"""Mounting storages in the guest, for containers to use; several may share one.

The rule: a mount point that is mounted already is counted, not mounted again, and unmounted with
the last container that asked for it.
"""

from __future__ import annotations

import os
import time

from kata.errors import GuestError, InvalidInput, NotFound
from kata.guest import modules, tree
from kata.guest.rootfs import failed
from kata.linux import mounts, syscalls
from kata.wire.agent_api import DISK_PREFIX

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kata.wire.agent_api import Node, Storage

_BLOCK = "/sys/block"
_WAIT_S, _STEP_S = 2.0, 0.02
_SHARE_WAIT_S, _SHARE_STEP_S = 5.0, 0.002
_ENODEV, _EINVAL = 19, 22


class Storages:
    """What is mounted for containers, and for how many of them."""

    def __init__(self) -> None:
        self._users: dict[str, int] = {}
        self._disks: dict[str, str] = {}
        self._trees: dict[str, dict[str, Node]] = {}  # what is in each

    def look_for_disks(self) -> None:
        """Learn the serials of the disks that are there; asking a disk costs a request to it."""
        for name in sorted(os.listdir(_BLOCK)):
            if name.startswith("vd") and name not in self._disks.values():
                serial = _read(f"{_BLOCK}/{name}/serial")
                if serial:
                    self._disks[serial] = name

    def mount(self, storage: Storage) -> str:
        """Mount one; its mount point, which ``release`` takes."""
        point = storage.mount_point
        if not point.startswith("/") or "/../" in f"{point}/":
            raise InvalidInput(f'storage: mount point "{point}" is not an absolute path')
        if point in self._users:
            self._users[point] += 1
            return point
        driver = _DRIVERS.get(storage.driver)
        if driver is None:
            raise InvalidInput(f'storage: unknown driver "{storage.driver}"')
        try:
            os.makedirs(point, 0o755, exist_ok=True)
            try:
                driver(self, storage)
            except OSError as error:
                if error.errno != _ENODEV:
                    raise
                modules.load(f"fs-{storage.fstype}")  # the kernel does not know it yet
                driver(self, storage)
        except OSError as error:
            what = f'storage "{storage.source or storage.driver}" at "{point}"'
            raise failed(what, error) from None
        self._users[point] = 1
        return point

    def release(self, point: str) -> None:
        """One user less; the last one unmounts it."""
        left = self._users.get(point, 0) - 1
        if left > 0:
            self._users[point] = left
            return
        self._users.pop(point, None)
        self._trees.pop(point, None)
        self.unmount(point)

    def update(self, point: str, nodes: list[Node]) -> None:
        """Make a mounted tree what it is to be from now on."""
        if point not in self._trees:
            raise NotFound(f'no tree at "{point[:256]}"')
        wanted = tree.check(nodes)
        try:
            tree.apply(point, self._trees[point], wanted)
        except OSError as error:
            raise failed(f'tree at "{point}"', error) from None

    @staticmethod
    def unmount(point: str) -> None:
        """Unmount what is at a point, and remove that."""
        try:
            syscalls.umount(point, syscalls.MNT_DETACH)
            os.rmdir(point)
        except OSError:
            pass  # never mounted, or a directory that was there before

    def _disk(self, serial: str) -> str:
        """The device node of the disk with this serial; looks for a newly plugged one once."""
        name = self._disks.get(serial)
        if name is None:
            # one that was taken away has left its name to another
            self._disks = {s: n for s, n in self._disks.items() if not s.startswith(DISK_PREFIX)}
            self.look_for_disks()
        if serial not in self._disks:
            self._rescan(serial)
        try:
            return f"/dev/{self._disks[serial]}"
        except KeyError:
            raise GuestError(f'storage: no disk with serial "{serial}"') from None

    def _rescan(self, serial: str) -> None:
        try:
            with open("/sys/bus/pci/rescan", "wb", buffering=0) as file:
                file.write(b"1")
        except OSError:
            return
        end = time.monotonic() + _WAIT_S
        while serial not in self._disks and time.monotonic() < end:
            time.sleep(_STEP_S)
            self.look_for_disks()

    def _block(self, storage: Storage) -> None:
        options = mounts.parse(storage.options)
        mounts.mount(self._disk(storage.source), storage.mount_point, storage.fstype, options)

    def _share(self, storage: Storage) -> None:
        options = mounts.parse(storage.options)
        end = time.monotonic() + _SHARE_WAIT_S
        while True:  # the share is plugged after a restore: the kernel may still be finding it
            try:
                mounts.mount(storage.source, storage.mount_point, "virtiofs", options)
            except OSError as error:
                if error.errno != _EINVAL or time.monotonic() > end:
                    raise
                time.sleep(_SHARE_STEP_S)
            else:
                return

    def _wired_share(self, storage: Storage) -> None:
        """A share that the VMM itself serves: its device is there from the boot on."""
        mounts.mount(storage.source, storage.mount_point, "9p", mounts.parse(storage.options))

    def _tmpfs(self, storage: Storage) -> None:
        options = mounts.parse(storage.options)
        mounts.mount(storage.source or "tmpfs", storage.mount_point, "tmpfs", options)

    def _tree(self, storage: Storage) -> None:
        point, wanted = storage.mount_point, tree.check(storage.nodes)
        mounts.mount("tmpfs", point, "tmpfs", mounts.parse(storage.options))
        made: dict[str, Node] = {}
        try:
            tree.apply(point, made, wanted)
        except OSError:
            self.unmount(point)
            raise
        self._trees[point] = made

    def _overlay(self, storage: Storage) -> None:
        for option in storage.options:
            key, _, path = option.partition("=")
            if key in ("upperdir", "workdir"):
                os.makedirs(path, 0o755, exist_ok=True)
        options = mounts.parse(storage.options)
        mounts.mount("overlay", storage.mount_point, "overlay", options)

    def _bind(self, storage: Storage) -> None:
        options = mounts.parse([*storage.options, "rbind"])
        mounts.mount(storage.source, storage.mount_point, "", options)


_DRIVERS = {
    "blk": Storages._block,
    "virtio-fs": Storages._share,
    "9p": Storages._wired_share,
    "tmpfs": Storages._tmpfs,
    "overlay": Storages._overlay,
    "bind": Storages._bind,
    "tree": Storages._tree,
}


def _read(path: str) -> str:
    try:
        with open(path, "rb", buffering=0) as file:
            return file.read(256).decode().strip()
    except OSError:
        return ""
