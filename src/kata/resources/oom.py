"""Telling an engine that a guest was out of memory: by an event in the control group it watches.

Engines learn of it from the kernel, through the group of the container's process on the host
(``memory.oom_control`` of version 1, ``memory.events`` of version 2). The group of the guest is
another kernel's, so a child runs out of memory in the host's group in its place. The rule: the
child is all that can be killed, so this is only for a group whose other processes are stand-ins.
Sources: Documentation/admin-guide/cgroup-v1/memory.rst (10. OOM Control), cgroup-v2.rst.
"""

from __future__ import annotations

import os

from kata.linux import cgroups

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kata.resources.group import Group

_ROOM = 4 << 20  # bytes beyond what is used: enough for the child to begin
_APPETITE = 64 << 20
# version -> (what is used, the limit, swap off: file and value)
_FILES = {
    1: ("memory.usage_in_bytes", "memory.limit_in_bytes", ("memory.swappiness", "0")),
    2: ("memory.current", "memory.max", ("memory.swap.max", "0")),
}


def echo_oom(group: Group) -> bool:
    """Cause one out-of-memory event in the group; whether it came to that."""
    path = group.points.get("memory", "")
    if not path or group.version not in _FILES:
        return False
    path = f"{path}/{group.below}"
    usage, limit, (swap, none) = _FILES[group.version]
    before = cgroups.read(f"{path}/{limit}").strip()
    used = cgroups.read(f"{path}/{usage}").strip()
    if not before or not used.isdecimal():
        return False
    try:
        _try(f"{path}/{swap}", none)
        cgroups.write(f"{path}/{limit}", str(int(used) + _ROOM))
    except OSError:
        return False
    try:
        return _sacrifice(path)
    finally:
        _try(f"{path}/{limit}", before)


def _sacrifice(path: str) -> bool:
    """A child that takes more than there is; whether it was killed for it."""
    pid = os.fork()
    if pid == 0:
        try:
            cgroups.write("/proc/self/oom_score_adj", "1000")
            cgroups.write(f"{path}/cgroup.procs", "0")
            _ = b"." * _APPETITE
        finally:
            os._exit(0)
    return os.WIFSIGNALED(os.waitpid(pid, 0)[1])


def _try(path: str, value: str) -> None:
    try:
        cgroups.write(path, value)
    except OSError:
        pass  # a kernel without swap accounting, a group that is gone
