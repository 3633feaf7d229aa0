"""A container's root file system: the mounts that containerd's snapshotter describes.

The rule: they are mounted where containerd looks for them too, in the bundle and in its own mount
namespace, so that whichever of us comes to clean up can.
"""

from __future__ import annotations

import os
import stat
from errno import EINVAL, ENOENT

from kata.errors import HostError
from kata.linux import mounts
from kata.linux import syscalls as sc
from kata.wire.containerd_types import Mount

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_GUESTS = ("ext4", "erofs")  # file systems that the guest image has
_MOST_LAYERS = 64  # mounts at one place: of a place that something mounts again and again


def for_guest(wanted: Sequence[Mount]) -> Mount | None:
    """The one mount that the guest can do itself: of a block device, or a file that is a disk."""
    if len(wanted) != 1 or wanted[0].type not in _GUESTS or wanted[0].target.strip("/"):
        return None
    try:
        mode = os.stat(wanted[0].source).st_mode
    except OSError:
        return None
    if not (stat.S_ISBLK(mode) or stat.S_ISREG(mode)):
        return None
    options = [o for o in wanted[0].options if o != "loop"]
    return Mount(type=wanted[0].type, source=wanted[0].source, options=options)


def mount_all(wanted: Sequence[Mount], target: str) -> None:
    """Mount them in order; all or none. Raises ``HostError``."""
    if not wanted:
        return
    os.makedirs(target, mode=0o711, exist_ok=True)
    try:
        for each in wanted:
            _mount(each, target)
    except HostError:
        unmount_all(target)
        raise


def _mount(wanted: Mount, target: str) -> None:
    place = f"{target}/{wanted.target}" if wanted.target.strip("/") else target
    options = [o for o in wanted.options if o != "loop"]
    if "loop" in wanted.options or _needs_loop(wanted):
        _mount_by_tool(wanted, place)
        return
    try:
        mounts.mount(wanted.source, place, wanted.type, mounts.parse(options))
    except OSError as error:
        raise HostError(
            f'cannot mount the root file system "{wanted.source}" ({wanted.type})',
            why=error.strerror or "",
        ) from None


def _needs_loop(wanted: Mount) -> bool:
    """Whether a file is to be mounted as a disk."""
    return wanted.type not in ("bind", "overlay", "tmpfs", "") and os.path.isfile(wanted.source)


def _mount_by_tool(wanted: Mount, place: str) -> None:
    """mount(8) sets up loop devices."""
    options = [o for o in wanted.options if o != "loop"]
    argv = ["mount", "-t", wanted.type, "-o", ",".join(("loop", *options)), wanted.source, place]
    status = os.spawnv(os.P_WAIT, "/bin/mount", argv)
    if status:
        raise HostError(
            f'cannot mount the root file system "{wanted.source}" ({wanted.type})',
            why=f"mount ended with {status}",
        )


def unmount_all(target: str) -> None:
    """Take away everything mounted there; nothing there is fine. Raises ``HostError``."""
    for _ in range(_MOST_LAYERS):
        try:
            sc.umount(target, sc.MNT_DETACH | sc.UMOUNT_NOFOLLOW)
        except OSError as error:
            if error.errno in (EINVAL, ENOENT):
                return
            raise HostError(f'cannot unmount "{target}"', why=error.strerror or "") from None
