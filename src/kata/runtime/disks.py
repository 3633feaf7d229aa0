"""Disks of a running machine: plugged root file systems, and layers behind its wired disks.

The rule: a disk is opened once, here; the VMM has a descriptor, and no path of ours.
"""

from __future__ import annotations

import os
from stat import S_ISBLK

from kata.errors import HostError, HypervisorError, InvalidInput
from kata.runtime.lifetime import note

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from kata.hypervisors.interface import Vm
    from kata.storage.plan import Disk, Layer, Plan


def open_layer(path: str, *, sealed: bool = False) -> int:
    """An image layer, for a wired disk; ``sealed`` as in ``linux/sealed``. Raises ``HostError``."""
    try:
        return _open_read_only(path, sealed=sealed)
    except OSError as error:
        raise HostError(
            f'cannot open the image layer "{path}"', why=error.strerror or "",
            hint="kata image rm removes the image, kata image pull fetches it again",
        ) from None


def _open_read_only(path: str, *, sealed: bool) -> int:
    if sealed:
        from kata.linux.sealed import open_read_only

        return open_read_only(path)
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC)


class Disks:
    """What is plugged into one machine; ``sealed``: what is read-only must stay so for its VMM."""

    def __init__(self, vm: Vm, *, sealed: bool) -> None:
        self._vm, self._sealed = vm, sealed
        self._numbers: set[int] = set()
        self._behind: dict[int, str] = {}  # layers, by their wired disks

    def attach(self, plan: Plan) -> None:
        """All that a plan has. Raises ``HostError``, ``InvalidInput``, and as the VMM."""
        for disk in plan.disks:
            self.plug(disk)
        for layer in plan.layers:
            self._bind(layer)

    def _bind(self, layer: Layer) -> None:
        if self._behind.get(layer.slot) == layer.path:
            return
        fd = open_layer(layer.path, sealed=self._sealed)
        try:
            self._vm.bind_disk(layer.slot, fd)
        finally:
            os.close(fd)
        self._behind[layer.slot] = layer.path

    def plug(self, disk: Disk) -> None:
        """Plug one. Raises ``HostError``, ``InvalidInput`` for what is no disk, and as the VMM."""
        readonly = "ro" in disk.options
        try:
            if readonly:
                fd = _open_read_only(disk.path, sealed=self._sealed)
            else:
                fd = os.open(disk.path, os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            raise HostError(f'disk "{disk.path}"', why=error.strerror or "") from None
        try:
            mode = os.fstat(fd).st_mode
            is_device = S_ISBLK(mode)
            if not is_device and mode & 0o170000 != 0o100000:
                raise InvalidInput(f'disk "{disk.path}"', why="neither a block device nor a file")
            self._vm.plug_disk(disk.number, fd, readonly=readonly, is_device=is_device)
        finally:
            os.close(fd)
        self._numbers.add(disk.number)

    def unplug(self, disks: Iterable[Disk]) -> None:
        """Take away those that were plugged; what does not work is noted: the machine goes on."""
        for disk in disks:
            if disk.number not in self._numbers:
                continue
            self._numbers.discard(disk.number)
            if self._vm.death():
                continue
            try:
                self._vm.unplug_disk(disk.number)
            except HypervisorError as error:
                note(f'disk "{disk.path}" stays plugged: {error}')
