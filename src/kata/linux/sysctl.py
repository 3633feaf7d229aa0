"""Kernel parameters that belong to a namespace, and writing them.

The rule: a container may set what its own namespaces hold, never what the whole kernel shares.
"""

from __future__ import annotations

from kata.errors import InvalidInput

_IPC = frozenset((
    "kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.sem", "kernel.shmall",
    "kernel.shmmax", "kernel.shmmni", "kernel.shm_rmid_forced",
))  # fmt: skip


def namespace_of(name: str) -> str:
    """The kind of namespace that holds a parameter, "" if none does."""
    name = name.replace("/", ".")
    if name in _IPC or name.startswith("fs.mqueue."):
        return "ipc"
    if name.startswith("net."):
        return "network"
    if name in ("kernel.domainname", "kernel.hostname"):
        return "uts"
    return ""


def path_of(name: str) -> str:
    """The path below /proc/sys of a parameter. Raises ``InvalidInput`` for one that leaves it."""
    first = min((name.find(c) for c in "./" if c in name), default=-1)
    path = name if first >= 0 and name[first] == "/" else _swap(name)
    if not path or any(part in ("", ".", "..") for part in path.split("/")):
        raise InvalidInput(f'not a kernel parameter: "{name}"')
    return path


def _swap(name: str) -> str:
    return name.translate({46: "/", 47: "."})


def write(name: str, value: str, proc: str = "/proc") -> None:
    """Set a parameter. Raises ``OSError``."""
    with open(f"{proc}/sys/{path_of(name)}", "wb", buffering=0) as file:
        file.write(value.encode())
