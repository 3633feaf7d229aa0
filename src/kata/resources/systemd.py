"""Control groups that systemd makes: a transient scope for a sandbox, below a slice.

The one rule: systemd is asked for the scope and given one process for it; what is written into the
group afterwards is the same as without it. ``busctl`` asks: a bus client is not our business.
Sources: systemd.slice(5), org.freedesktop.systemd1(5), busctl(1); runc's docs/systemd.md.
"""

from __future__ import annotations

import os
import time

from kata.errors import HostError, InvalidInput
from kata.wire.record import record

_RUNNING = "/run/systemd/system"
_PATHS = ("/usr/bin/busctl", "/bin/busctl")
_DEFAULT_SLICE = "system.slice"
_WAIT_S, _STEP_S = 10.0, 0.002
_CALL = (
    "--quiet", "call", "org.freedesktop.systemd1", "/org/freedesktop/systemd1",
    "org.freedesktop.systemd1.Manager", "StartTransientUnit", "ssa(sv)a(sa(sv))",
)  # fmt: skip


@record
class Unit:
    """A scope: the slice it is below, and its name with the ``.scope``."""

    slice: str
    name: str


def unit(cgroups_path: str, container_id: str) -> Unit:
    """The scope that ``SLICE:PREFIX:NAME`` means; an empty path means one of our own.

    Raises ``InvalidInput`` for anything else.
    """
    if not cgroups_path:
        return Unit(_DEFAULT_SLICE, f"kata-{container_id}.scope")
    parts = cgroups_path.split(":")
    if len(parts) != 3 or "/" in cgroups_path or not parts[2]:
        raise InvalidInput(
            f'linux.cgroupsPath "{cgroups_path}"',
            why='expected cgroupsPath to be of format "slice:prefix:name" for systemd cgroups',
        )
    slice_, prefix, name = parts
    if slice_ and not slice_.endswith(".slice"):
        raise InvalidInput(f'linux.cgroupsPath "{cgroups_path}"', why="the slice is none")
    return Unit(slice_ or _DEFAULT_SLICE, f"{prefix}-{name}.scope" if prefix else f"{name}.scope")


def slice_path(name: str) -> str:
    """The directory of a slice below a hierarchy: ``a-b.slice`` is ``a.slice/a-b.slice``."""
    stem = name.removesuffix(".slice")
    if stem == "-":
        return ""
    parts = stem.split("-")
    if not all(parts):
        raise InvalidInput(f'invalid slice name "{name}"')
    return "/".join(f"{'-'.join(parts[: i + 1])}.slice" for i in range(len(parts)))


def arguments(scope: Unit, pid: int, description: str) -> tuple[str, ...]:
    """What ``busctl`` is told to start a scope with one process in it."""
    properties = (
        ("Description", "s", description), ("Slice", "s", scope.slice),
        ("PIDs", "au", "1", str(pid)),
        ("Delegate", "b", "true"), ("DefaultDependencies", "b", "false"),
        ("MemoryAccounting", "b", "true"), ("CPUAccounting", "b", "true"),
        ("TasksAccounting", "b", "true"),
    )  # fmt: skip
    words = [word for row in properties for word in row]
    return (*_CALL, scope.name, "replace", str(len(properties)), *words, "0")


def require() -> str:
    """The ``busctl`` of a host that runs systemd. Raises ``HostError`` in runc's words."""
    program = next((path for path in _PATHS if os.access(path, os.X_OK)), "")
    if not program or not os.path.isdir(_RUNNING):
        raise HostError(
            "systemd not running on this host, cannot use systemd cgroups manager",
            hint='let the engine use the control group manager "cgroupfs"',
        )
    return program


def start(scope: Unit, description: str) -> None:
    """Move this process into a new scope, and wait until it is there. Raises ``HostError``."""
    program = require()
    words = arguments(scope, os.getpid(), description)
    reader, writer = os.pipe2(os.O_CLOEXEC)
    actions = [(os.POSIX_SPAWN_DUP2, writer, 1), (os.POSIX_SPAWN_DUP2, writer, 2)]
    pid = os.posix_spawn(program, [program, *words], {"PATH": "/usr/bin"}, file_actions=actions)
    os.close(writer)
    with open(reader, "rb") as file:
        said = file.read(4096).decode(errors="replace").strip()
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if code:
        raise HostError(f'cannot start the systemd unit "{scope.name}"', why=said)
    end = time.monotonic() + _WAIT_S
    while not _inside(scope):
        if time.monotonic() > end:
            raise HostError(f'systemd did not start the unit "{scope.name}" within {_WAIT_S:.0f} s')
        time.sleep(_STEP_S)


def _inside(scope: Unit) -> bool:
    with open("/proc/self/cgroup", encoding="utf-8", errors="replace") as file:
        return any(line.rstrip("\n").endswith(f"/{scope.name}") for line in file)
