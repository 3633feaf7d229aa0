"""User namespaces: maps of ids, and making a namespace that has them.

A map is OCI's: entries of ``containerID``, ``hostID`` and ``size``. The rule: a namespace is made
by a child that does nothing but hold it until its maps are written; then its descriptor is all
there is of it. Source: user_namespaces(7).
"""

from __future__ import annotations

import os

from kata.errors import InvalidInput
from kata.linux import syscalls as sc

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import TypeAlias

    Map: TypeAlias = tuple[tuple[int, int, int], ...]  # first id inside, first outside, how many


def parse(entries: Sequence[Mapping[str, int]] | None) -> Map:
    """A map from OCI's ``uidMappings`` or ``gidMappings``."""
    return tuple(
        (int(e.get("containerID") or 0), int(e.get("hostID") or 0), int(e.get("size") or 0))
        for e in entries or ()
    )


def outside(mapping: Map, inside: int, what: str = "id") -> int:
    """The id outside for one inside. Raises ``InvalidInput`` if there is none."""
    for first, start, size in mapping:
        if first <= inside < first + size:
            return start + inside - first
    raise InvalidInput(f"the {what} {inside} is not in the map of its user namespace")


def new(uids: Map, gids: Map, flags: int = 0) -> tuple[int, ...]:
    """A new user namespace by descriptor; with CLONE_NEWNET in ``flags`` its network after it.

    Raises ``OSError``, which names the map that the kernel does not take.
    """
    pid = sc.clone(sc.CLONE_NEWUSER | flags)
    if pid == 0:
        sc.hold_still()
        os._exit(0)
    try:
        _write(f"/proc/{pid}/uid_map", uids)
        _write(f"/proc/{pid}/gid_map", gids)
        found = [os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)]
        if flags & sc.CLONE_NEWNET:
            found.append(os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC))
        return tuple(found)
    finally:
        os.kill(pid, 9)
        os.waitpid(pid, 0)


def _write(path: str, mapping: Map) -> None:
    """All lines in one write: the kernel takes no second one."""
    text = "".join(f"{first} {start} {size}\n" for first, start, size in mapping)
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    except OSError as error:
        kind = os.path.basename(path)
        raise OSError(error.errno, os.strerror(error.errno or 0), f"write {kind}") from None
    finally:
        os.close(fd)


def become_root() -> None:
    """Be user and group 0 of the user namespace that was just entered, and in no other group."""
    os.setgroups(())
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
