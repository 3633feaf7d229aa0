"""Forking a child of the agent straight into namespaces.

The rule: the agent's own namespaces are the same before and after, whatever happens.
"""

from __future__ import annotations

import os

from kata.errors import InvalidInput, Unsupported
from kata.guest import child
from kata.linux import namespaces as ns
from kata.linux import syscalls as sc

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
    if "user" in wanted:
        raise Unsupported("user namespaces in the guest", hint="leave them out: the VM isolates")
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
            undo.append(("pid", _own("pid")))
            ns.enter("pid", pid_namespace)
        if clock_offsets is not None:
            undo.append(("time", _own("time")))
            sc.unshare(sc.CLONE_NEWTIME)
            _write_offsets(clock_offsets)
        pid = sc.clone(flags)
        if pid == 0:
            child.run(body, report, keep)
        return pid
    finally:
        for kind, fd in undo:
            sc.setns(fd, ns.KINDS[kind][0])
            os.close(fd)


def _own(kind: str) -> int:
    return os.open(ns.path_of(kind), os.O_RDONLY | os.O_CLOEXEC)


def _write_offsets(offsets: Spec) -> None:
    """time_namespaces(7): must be written before the first process is in the namespace."""
    for clock, offset in offsets.items():
        if clock not in ("monotonic", "boottime"):
            raise InvalidInput(f'linux.timeOffsets: unknown clock "{clock}"')
        line = f"{clock} {int(offset.get('secs') or 0)} {int(offset.get('nanosecs') or 0)}\n"
        with open("/proc/self/timens_offsets", "wb", buffering=0) as file:
            file.write(line.encode())
