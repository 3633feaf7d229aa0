"""Device nodes: the ones every container has, and making one from its OCI description.

Source: runtime-spec config-linux.md "Default Devices".
"""

from __future__ import annotations

import os
from _stat import S_ISCHR

from kata.errors import InvalidInput
from kata.wire.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

_KINDS = {"c": 0o020000, "u": 0o020000, "b": 0o060000, "p": 0o010000}


@record
class Node:
    """A device node: ``kind`` is c, u, b or p."""

    path: str
    kind: str
    major: int
    minor: int
    mode: int = 0o666
    uid: int = 0
    gid: int = 0


DEFAULT = (
    Node("/dev/null", "c", 1, 3), Node("/dev/zero", "c", 1, 5), Node("/dev/full", "c", 1, 7),
    Node("/dev/random", "c", 1, 8), Node("/dev/urandom", "c", 1, 9), Node("/dev/tty", "c", 5, 0),
)  # fmt: skip
LINKS = (
    ("fd", "/proc/self/fd"), ("stdin", "/proc/self/fd/0"), ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"), ("ptmx", "pts/ptmx"),
)  # fmt: skip


def node_of(entry: Mapping[str, Any]) -> Node:
    """A node from OCI's ``linux.devices``."""
    mode = entry.get("fileMode")
    return Node(
        str(entry["path"]), str(entry["type"]), int(entry.get("major") or 0),
        int(entry.get("minor") or 0), 0o666 if mode is None else int(mode),
        int(entry.get("uid") or 0), int(entry.get("gid") or 0),
    )  # fmt: skip


def is_own_terminals(path: str) -> bool:
    """Whether a path is where the link to a container's own terminals is.

    All devices of a host, which a privileged container is given, have a node there; runc puts the
    link in its place.
    """
    return "/" + path.strip("/") == "/dev/ptmx"


def make(node: Node, name: str, directory: int) -> None:
    """Make a node as ``name`` in an open directory; what is there already is kept, as by runc."""
    kind = _KINDS.get(node.kind)
    if kind is None:
        raise InvalidInput(f'device "{node.path}"', why=f'unknown type "{node.kind}"')
    number = os.makedev(node.major, node.minor)
    try:
        os.mknod(name, kind | node.mode & 0o7777, number, dir_fd=directory)
    except FileExistsError:
        return
    if node.uid or node.gid:
        os.chown(name, node.uid, node.gid, dir_fd=directory, follow_symlinks=False)


def remove(name: str, directory: int) -> None:
    """Remove a node, if there is one."""
    try:
        if S_ISCHR(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode):
            os.unlink(name, dir_fd=directory)
    except FileNotFoundError:
        pass


def make_links(directory: int, links: tuple[tuple[str, str], ...] = LINKS) -> None:
    """Make the usual symbolic links of /dev; what is there already is kept."""
    for name, target in links:
        try:
            os.symlink(target, name, dir_fd=directory)
        except FileExistsError:
            pass
