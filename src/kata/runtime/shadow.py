"""What engines find where they look behind a container's pid: namespaces of the stand-in.

Podman copies files by way of the mount namespace of the pid it knows, and lists processes by the
``/proc`` in it; pods name the namespaces of their first container by it. So the stand-in has a
mount namespace whose root is the container's root file system on the host, volumes included, and
a ``/proc`` with the stand-ins alone. The rule: nothing of the container is executed or trusted
here, and what cannot be mounted is left out.
"""

from __future__ import annotations

import os
import sys

from kata.linux import inroot
from kata.linux import syscalls as sc
from kata.wire.record import record

NAMESPACES = sc.CLONE_NEWNS | sc.CLONE_NEWPID | sc.CLONE_NEWIPC | sc.CLONE_NEWUTS


@record
class Shadow:
    """The root file system, and what is bound into it: (source, destination).

    A source may be options of an overlay, which is mounted then, to be read (``bundle``).
    """

    rootfs: str
    binds: tuple[tuple[str, str], ...] = ()


def enter(shadow: Shadow) -> None:
    """Make the root of this process, in a mount namespace of its own, that of the container.

    From here on nothing is imported from files: those are the container's.
    """
    sys.meta_path.clear()
    sys.path.clear()
    sc.mount("", "/", None, sc.MS_SLAVE | sc.MS_REC)
    sc.mount(shadow.rootfs, shadow.rootfs, None, sc.MS_BIND | sc.MS_REC)
    root = os.open(shadow.rootfs, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    for source, destination in shadow.binds:
        if source.startswith("lowerdir="):
            _mount(root, "overlay", destination, "overlay", sc.MS_RDONLY, source)
        else:
            _mount(root, source, destination, None, sc.MS_BIND | sc.MS_REC)
    _mount(root, "proc", "/proc", "proc", sc.MS_NOSUID | sc.MS_NODEV | sc.MS_NOEXEC)
    os.fchdir(root)
    os.close(root)
    sc.pivot_root(".", ".")
    sc.umount(".", sc.MNT_DETACH)
    os.chdir("/")


def _mount(
    root: int, source: str, destination: str, fstype: str | None, flags: int,
    data: str | None = None,
) -> None:  # fmt: skip
    """Mount inside the root, whatever links are in it; engines see a little less if it fails."""
    try:
        fd = inroot.open_path(root, destination, 0)
    except OSError:
        return
    try:
        sc.mount(source, inroot.text_of(fd), fstype, flags, data)
    except OSError:
        pass
    finally:
        os.close(fd)
