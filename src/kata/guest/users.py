"""User namespaces of containers, from the agent's side: made or found, and made room for.

The rule: what needs the agent's own rights is done before a child enters the namespace; all that
the child makes in it (mounts, namespaces) then belongs to it, as on any host.
"""

from __future__ import annotations

import os

from kata.errors import InvalidInput, WrongState
from kata.linux import devices, mounts
from kata.linux import namespaces as ns
from kata.linux import syscalls as sc
from kata.linux import users as maps
from kata.wire.agent_api import CONTAINER_PREFIX, SANDBOX_NETWORK

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from kata.guest.container import Container
    from kata.guest.spec import Spec
    from kata.linux.cgroup2 import Group

_DELEGATED = "/sys/kernel/cgroup/delegate"
_CGROUP = "/sys/fs/cgroup"
_TRAVERSE = 0o111


class Users:
    """The user namespace of a container: by descriptor while that is being made, and its maps."""

    def __init__(self, fd: int, uids: maps.Map, gids: maps.Map) -> None:
        self.fd, self.uids, self.gids = fd, uids, gids
        self.root = maps.outside(uids, 0, "user"), maps.outside(gids, 0, "group")

    def close(self) -> None:
        """Let go of the descriptor."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def own_streams(self, fds: list[int]) -> None:
        """Give standard streams to the namespace's root: its programs open them by name."""
        for fd in fds:
            if fd >= 0:
                os.fchown(fd, *self.root)

    def own_group(self, group: Group, spec: Spec) -> None:
        """Give a control group to the user of the process if the container may write it.

        Conditions and files are runc's: a cgroup namespace, and its file system mounted writable.
        """
        written = any(
            m.get("type") in ("cgroup", "cgroup2") and m["destination"].rstrip("/") == _CGROUP
            and not mounts.parse(m.get("options") or []).flags & sc.MS_RDONLY
            for m in spec.get("mounts") or []
        )  # fmt: skip
        if not written:
            return
        user = int((spec["process"].get("user") or {}).get("uid") or 0)
        owner = maps.outside(self.uids, user, "user")
        with open(_DELEGATED, "rb", buffering=0) as file:
            names = file.read().decode().split()
        for path in (group.path, *(f"{group.path}/{name}" for name in names)):
            try:
                os.chown(path, owner, -1)
            except FileNotFoundError:
                pass  # of a controller that the group does not have

    def nodes(self, entries: list[Spec], directory: str) -> list[str]:
        """Device nodes to bind into the container, which cannot make any: their paths.

        They are made in a file system of their own, mounted at ``directory``: that of the agent's
        files has no devices. Their owners are those of the map.
        """
        if not entries:
            return []
        os.makedirs(directory, 0o711, exist_ok=True)
        sc.mount("tmpfs", directory, "tmpfs", sc.MS_NOSUID | sc.MS_NOEXEC, "mode=711")
        place = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for number, entry in enumerate(entries):
                node = devices.node_of(entry)
                devices.make(node, str(number), place)
                owner = maps.outside(self.uids, node.uid), maps.outside(self.gids, node.gid)
                os.chown(str(number), *owner, dir_fd=place, follow_symlinks=False)
        finally:
            os.close(place)
        return [f"{directory}/{number}" for number in range(len(entries))]


def find(
    spec: Spec, wanted: dict[str, str], containers: dict[str, Container],
    move_network: Callable[[int], None],
) -> Users | None:  # fmt: skip
    """The user namespace that a container asks for: another's, or a new one; None without.

    The network of a sandbox whose first container has one comes to belong to it, or its root
    could neither bind low ports nor mount /sys. Raises ``InvalidInput``, ``WrongState``.
    """
    if "user" not in wanted:
        return None
    if wanted["user"]:
        return _joined(wanted["user"], containers)
    linux = spec.get("linux") or {}
    uids, gids = maps.parse(linux.get("uidMappings")), maps.parse(linux.get("gidMappings"))
    if not uids or not gids:
        raise InvalidInput("a user namespace needs linux.uidMappings and linux.gidMappings")
    moves = wanted.get("network") == SANDBOX_NETWORK and not containers
    try:
        fds = maps.new(uids, gids, sc.CLONE_NEWNET if moves else 0)
    except OSError as error:
        raise InvalidInput("make the user namespace", why=f"{error.filename}: {error.strerror}") \
            from None
    try:
        users = Users(fds[0], uids, gids)
        if moves:
            move_network(fds[1])
    except BaseException:
        os.close(fds[0])
        raise
    finally:
        for fd in fds[1:]:
            os.close(fd)
    return users


def _joined(path: str, containers: dict[str, Container]) -> Users:
    other = containers.get(path.removeprefix(CONTAINER_PREFIX))
    if other is None or other.users is None or other.init.exited.value is not None:
        raise WrongState(f'no running container with the user namespace "{path}"')
    fd = os.open(ns.path_of("user", other.init.pid), os.O_RDONLY | os.O_CLOEXEC)
    return Users(fd, other.users.uids, other.users.gids)


def let_through(paths: list[str], top: str) -> None:
    """Let other users than root pass through the agent's directories to these paths."""
    for path in paths:
        while (path := os.path.dirname(path)).startswith(top):
            mode = os.stat(path).st_mode & 0o7777
            if mode & _TRAVERSE != _TRAVERSE:
                os.chmod(path, mode | _TRAVERSE)
