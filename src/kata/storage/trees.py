"""What is shared, as whoever serves it has it: detached copies of mounts, and rights over files.

The one rule: a share is in the mount namespace of its server alone, below ``SHARE_PATH``; what is
to be read-only is so here, on the host's side, whatever the server does.

Sources: open_tree(2), mount_setattr(2), move_mount(2), capabilities(7).
"""

from __future__ import annotations

import os

from kata.errors import HostError
from kata.linux import confine
from kata.linux import syscalls as sys
from kata.machine.description import SHARE_PATH
from kata.wire.record import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from kata.linux.users import Map
    from kata.storage.plan import Ids, Share

_EINVAL = 22
_RLIMIT_NOFILE = 7
_OPEN_FILES = 1 << 20
# CAP_CHOWN, DAC_OVERRIDE, FOWNER, FSETID, MKNOD: files as root has them
FILE_RIGHTS = 1 << 0 | 1 << 1 | 1 << 3 | 1 << 4 | 1 << 27
_CAP_SYS_RESOURCE = 1 << 24


def trees(
    shares: Sequence[Share], sources: Mapping[str, int], server: int = 0
) -> tuple[confine.Tree, ...]:
    """A tree for each share, or none; ``sources`` has an O_PATH descriptor for each name.

    ``server`` is the user id that makes the files in them. The caller closes what the trees hold.
    Raises ``HostError``.
    """
    made: list[confine.Tree] = []
    try:
        for share in shares:
            made.append(_tree(share, sources[share.name], server))  # noqa: PERF401 (for ``except``)
    except BaseException:
        close(made)
        raise
    return tuple(made)


def close(made: Sequence[confine.Tree]) -> None:
    """Close the descriptors: what is attached stays, what is not ends."""
    for tree in made:
        os.close(tree.fd)


def attach(
    process: confine.Process, shares: Sequence[Share], sources: Mapping[str, int], server: int = 0
) -> None:
    """Let a server that runs have more; all or nothing. Raises ``HostError``."""
    made = trees(shares, sources, server)
    try:
        confine.add_trees(process, made, keep=SHARE_PATH)
    finally:
        close(made)


def detach(process: confine.Process, shares: Sequence[Share]) -> None:
    """Take these away from it: what it has open of them stays open."""
    targets = [f"{SHARE_PATH}/{share.name}" for share in shares]
    try:
        confine.empty_root(process, targets, keep=SHARE_PATH)
    except HostError:
        pass  # it has ended, and all of it with it


def _tree(share: Share, source: int, server: int) -> confine.Tree:
    """A detached copy of the mount at a source; devices and set-uid bits mean nothing in it."""
    attributes = sys.MOUNT_ATTR_NOSUID | sys.MOUNT_ATTR_NODEV | sys.MOUNT_ATTR_NOEXEC
    if share.readonly:
        attributes |= sys.MOUNT_ATTR_RDONLY
    try:
        if share.fresh:  # nobody else's: no copy is needed, and older kernels make none
            fd = os.dup(source)
            sys.mount_setattr("", sys.AT_EMPTY_PATH, attributes, directory=fd)
        else:
            fd = sys.clone_tree(source, attributes, recursive=share.recursive)
    except OSError as error:
        raise HostError(f'cannot share "{share.source}"', why=error.strerror or "") from None
    if share.ids is not None:
        try:
            _map_ids(fd, with_server(share.ids, server))
        except OSError as error:
            os.close(fd)
            raise _not_mapped(share, error) from None
    return confine.Tree(fd, f"{SHARE_PATH}/{share.name}")


def with_server(ids: Ids, server: int) -> Ids:
    """The same map for a server that makes files as its own and gives them away then.

    The kernel lets nobody make a file who is not in the map of the mount.
    """
    return replace(ids, uids=_with(ids.uids, server), gids=_with(ids.gids, server))


def _with(entries: Map, number: int) -> Map:
    taken = any(
        first <= number < first + count
        for inside, outside, count in entries
        for first in (inside, outside)
    )
    return entries if taken or not number else (*entries, (number, number, 1))


def _map_ids(tree: int, ids: Ids) -> None:
    """Let the owners of files in a detached mount appear as others. Raises ``OSError``."""
    from kata.linux import users

    (namespace,) = users.new(ids.uids, ids.gids)
    try:
        sys.map_ids(tree, namespace, recursive=ids.recursive)
    finally:
        os.close(namespace)


def _not_mapped(share: Share, error: OSError) -> HostError:
    why = f"{error.filename}: {error.strerror}"
    if error.errno == _EINVAL:
        why = "the host's kernel does not map ids on its file system, or on one below it"
    return HostError(
        f'cannot map ids of the mount "{share.source}"', why=why,
        hint='"idmap" maps the topmost mount alone, "ridmap" those below it too',
    )  # fmt: skip


def open_files() -> int:
    """The limit of open files: a server holds one for each file that the guest has, or knows."""
    from resource import getrlimit

    hard = getrlimit(_RLIMIT_NOFILE)[1]
    if status("self")[b"CapEff"] & _CAP_SYS_RESOURCE:
        with open("/proc/sys/fs/nr_open", "rb") as stream:
            hard = max(hard, min(_OPEN_FILES, int(stream.read())))
    return hard


def status(pid: int | str) -> dict[bytes, int]:
    """The numbers of /proc/PID/status that say how a process is confined (proc(5))."""
    with open(f"/proc/{pid}/status", "rb") as stream:
        lines = dict(line.partition(b":")[::2] for line in stream.read().splitlines())
    return {b"CapEff": int(lines[b"CapEff"], 16), b"Seccomp": int(lines.get(b"Seccomp", b"0"))}
