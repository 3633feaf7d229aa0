"""Forking a child of the agent straight into namespaces.

The rule: the agent's own namespaces are the same before and after, whatever happens.
"""

from __future__ import annotations

import os

from kata.errors import Unsupported
from kata.guest import child
from kata.linux import namespaces as ns
from kata.linux import syscalls as sc
from kata.linux import users as maps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from kata.guest.spec import Spec

# what a child enters by being cloned; cgroup only once it was moved into its group
_CLONED = ("ipc", "uts", "network", "pid", "mount")


def flags_for(wanted: dict[str, str]) -> int:
    """The clone(2) flags for a container's new namespaces. Raises ``Unsupported``."""
    if wanted.get("mount") != "":
        raise Unsupported("a container without a mount namespace of its own")
    flags = 0
    for kind in _CLONED:
        if wanted.get(kind) == "":
            flags |= ns.KINDS[kind][0]
    return flags


def fork(
    flags: int, body: Callable[[], None], report: int, keep: list[int], *,
    pid_namespace: str = "", clock_offsets: Spec | None = None,
) -> int:  # fmt: skip
    """A child running ``body`` with the descriptors in ``keep``; its process id.

    ``pid_namespace`` is the path of one that the child is to be in; ``clock_offsets`` (OCI's
    linux.timeOffsets) asks for a time namespace.
    """
    undo: list[tuple[str, int]] = []
    try:
        if pid_namespace:
            undo.append(("pid", own("pid")))
            ns.enter("pid", pid_namespace)
        if clock_offsets is not None:
            undo.append(("time", own("time")))
            ns.new_time(clock_offsets)
        pid = sc.clone(flags)
        if pid == 0:
            child.run(body, report, keep)
        return pid
    finally:
        for kind, fd in undo:
            sc.setns(fd, ns.KINDS[kind][0])
            os.close(fd)


def fork_beside(
    pidfd: int, group: str, body: Callable[[], None], report: int, keep: list[int], *,
    home: int = -1,
) -> int:  # fmt: skip
    """A child born in a control group (its directory), beside the process behind ``pidfd``.

    With ``home``, the agent's own pid namespace, it is in the pid namespace of that process.
    """
    directory = os.open(group, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if home >= 0:
            sc.setns(pidfd, sc.CLONE_NEWPID)
        pid = sc.clone(0, directory)
        if pid == 0:
            child.run(body, report, keep)
        return pid
    finally:
        os.close(directory)
        if home >= 0:
            sc.setns(home, sc.CLONE_NEWPID)


def fork_across(
    users: int, flags: int, made: Callable[[], child.Child], report: int, keep: list[int]
) -> int:
    """As ``fork``, for a child whose new namespaces belong to the user namespace ``users``.

    A first child does what needs the agent's rights, enters the user namespace, forks the one
    that counts as its sibling, and leaves.
    """
    reader, writer = os.pipe2(os.O_CLOEXEC)
    try:
        first = sc.clone(0)
        if first == 0:
            child.run(
                lambda: _cross(users, flags, made(), writer), report, [*keep, users, writer]
            )
        os.close(writer)
        writer = -1
        told = os.read(reader, 4)  # it runs nothing but our own steps until it has told
    finally:
        os.close(reader)
        if writer >= 0:
            os.close(writer)
    return int.from_bytes(told, "little") if told else first  # which reports why


def _cross(users: int, flags: int, made: child.Child, writer: int) -> None:
    made.before_users()
    sc.setns(users, sc.CLONE_NEWUSER)
    maps.become_root()
    pid = sc.clone(flags | sc.CLONE_PARENT)
    if pid:
        os.write(writer, pid.to_bytes(4, "little"))
        os._exit(0)
    os.close(writer)
    os.close(users)
    made.create()


def own(kind: str) -> int:
    """A descriptor of the namespace that children of ours are born in."""
    return os.open(ns.path_of(kind), os.O_RDONLY | os.O_CLOEXEC)
