"""What several containers of a sandbox share of the host is one thing in the guest.

A socket, a lock or a watch on a file is that of an *inode*; two entries of the share for one
directory of the host would be two of them to the guest's kernel. So the same source gets the same
name, is served until the last container with it is gone, and a directory is mounted once in the
guest, for all: each mount namespace that looks into the share by itself gets file systems of its
own there. A copy, in a tmpfs of the guest, is made once likewise. The rule: what is mounted over a
source, or there instead of it, is another source.
"""

from __future__ import annotations

import os

from kata.storage.plan import SHARED
from kata.wire.agent_api import Storage
from kata.wire.record import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import TypeAlias

    from kata.storage.plan import Plan, Share

    Key: TypeAlias = tuple[str, bool, bool, bool, int, int]

_POINTS = "/run/kata/volumes"  # where the guest has them
_COPY_SIZE = "size=8m"  # the old and the new, twice of ``tree.MOST_LATER``, pages half full
ROOT = "-rootfs"  # ends the names of root file systems: each is one container's


class Common:
    """The shared sources of one sandbox, counted."""

    def __init__(self) -> None:
        self._names: dict[Key, str] = {}
        self._users: dict[str, int] = {}

    def take(self, plan: Plan, fds: Mapping[str, int]) -> tuple[Plan, tuple[Share, ...]]:
        """A container's plan with common names, and what of it is to be served from now on.

        ``fds`` has an O_PATH descriptor for each source.
        """
        renamed: dict[str, str] = {}
        kept: dict[str, Share] = {}
        for share in plan.shares:
            name = share.name
            if not name.endswith(ROOT):
                name = self._names.setdefault(_key(share, fds[share.source]), name)
            renamed[share.name] = name
            kept[name] = replace(share, name=name)
        fresh = tuple(
            share for name, share in kept.items() if name not in self._users and share.copy is None
        )
        for name in kept:
            self._users[name] = self._users.get(name, 0) + 1
        points = {
            name: point_of(name) for name, share in kept.items()
            if share.is_directory and not name.endswith(ROOT)
        }  # fmt: skip
        storages = tuple(_storage(kept[name], point) for name, point in points.items())
        mounts = []
        for mount in plan.mounts:
            name = renamed[mount["source"].rpartition("/")[2]]
            mounts.append({**mount, "source": points.get(name, f"{SHARED}/{name}")})
        return replace(
            plan, shares=tuple(kept.values()), mounts=tuple(mounts),
            storages=(*plan.storages, *storages),
        ), fresh

    def drop(self, plan: Plan) -> tuple[Share, ...]:
        """A container is gone: those of its shares that nobody has any more."""
        gone = []
        for share in plan.shares:
            self._users[share.name] -= 1
            if not self._users[share.name]:
                del self._users[share.name]
                gone.append(share)
        lost = {share.name for share in gone}
        self._names = {key: name for key, name in self._names.items() if name not in lost}
        return tuple(gone)


def point_of(name: str) -> str:
    """Where the guest has a directory of this name."""
    return f"{_POINTS}/{name}"


def _storage(share: Share, point: str) -> Storage:
    if share.copy is None:
        source = f"{SHARED}/{share.name}"
        return Storage(driver="bind", source=source, options=["rbind"], mount_point=point)
    return Storage(
        driver="tree", options=[_COPY_SIZE, "nosuid", "nodev"], mount_point=point,
        nodes=list(share.copy),
    )  # fmt: skip


def _key(share: Share, fd: int) -> Key:
    status = os.fstat(fd)
    copied = share.copy is not None
    return share.source, share.readonly, share.recursive, copied, status.st_dev, status.st_ino
