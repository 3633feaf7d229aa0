"""A sandbox's control group on the host: made, filled, emptied, removed.

The one rule: a host whose groups cannot be used still runs sandboxes: what does not work is a
warning, never a failure. Moving a running process costs the kernel 6 ms and more, and stops every
fork on the host meanwhile; a process that is born in its group, or that moves itself while it has
a single thread, costs nothing. So the VMM and its helpers enter at their start (``entry``), and the
supervisor stays outside, which also lets it remove the group.
"""

from __future__ import annotations

import os

from kata.linux import cgroups
from kata.resources import plan as plans
from kata.wire.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from kata.resources.plan import Limits

PARENT = "kata"
# of version 1's hierarchies those worth joining without a limit: to account and to stop
_JOINED = ("cpu", "cpuacct", "memory", "pids", "freezer")


@record
class Entry:
    """How a new process gets into the group: fields of ``confine.Confinement``."""

    cgroup: int = -1
    cgroup_tasks: tuple[str, ...] = ()


class Group:
    """The group of one sandbox; ``paths`` has a directory for each hierarchy."""

    def __init__(self, paths: tuple[str, ...], warnings: list[str], version: int) -> None:
        self.paths = paths
        self.warnings = warnings
        self.version = version
        self._fd = -1
        self.points: dict[str, str] = {}  # of each controller that is used
        self.below = ""  # the group's path below those

    def limit(self, limits: Limits) -> None:
        """Set limits; those that are not in ``limits`` stay as they are."""
        for write in plans.plan(limits, self.version):
            path = f"{self.points.get(write.controller, '')}/{self.below}"
            if path in self.paths:
                self._try(f"{path}/{write.file}", write.value)

    def extend(self, limits: Limits, layout: cgroups.Layout | None = None) -> None:
        """Have the controllers that ``limits`` need, with what is in the group, and set them."""
        if not self.below:
            return
        wanted = plans.controllers(limits)
        points = _points(layout or cgroups.detect(), wanted)
        inside = cgroups.members(self.paths[0]) if self.paths else ()
        for point in dict.fromkeys(points.values()):
            path = f"{point}/{self.below}"
            missing = tuple(c for c in wanted if points.get(c) == point and c not in self.points)
            if missing and _make(self, point, self.below, missing, self.version):
                self.points.update(dict.fromkeys(missing, point))
                if path not in self.paths:
                    self.paths = (*self.paths, path)
        self.limit(limits)
        self.enter(inside)

    def entry(self) -> Entry:
        """How the next processes get in."""
        if self.version == 1:
            return Entry(cgroup_tasks=tuple(f"{path}/tasks" for path in self.paths))
        if self.version == 2 and self.paths and self._fd < 0:
            try:
                self._fd = os.open(self.paths[0], os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            except OSError as error:
                self._warn(self.paths[0], error)
        return Entry(self._fd)

    def enter(self, pids: Iterable[int]) -> None:
        """Move in those that are not in yet: see above what it costs; off the critical path."""
        for path in self.paths:
            inside = set(cgroups.members(path))
            for pid in pids:
                if pid not in inside:
                    self._try(f"{path}/cgroup.procs", str(pid))

    def populated(self) -> bool:
        """Whether a process is in it."""
        return any(cgroups.members(path) for path in self.paths)

    def kill(self) -> None:
        """Kill whatever is in it."""
        for path in self.paths[:1]:
            cgroups.kill(path)

    def remove(self) -> None:
        """Kill what is left in it and remove it; any number of times."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        self._leave()
        left = cgroups.remove(self.paths, wait_s=0)
        if left:
            self.kill()
            self.warnings += cgroups.remove(self.paths)

    def _leave(self) -> None:
        """Go to the nearest group above that takes processes: a stand-in may tidy up its own."""
        for path in self.paths:
            if os.getpid() not in cgroups.members(path):
                continue
            above = os.path.dirname(path)
            while os.path.exists(f"{above}/cgroup.procs"):
                try:
                    cgroups.write(f"{above}/cgroup.procs", str(os.getpid()))
                except OSError:  # version 2 has processes in leaves and at the top only
                    above = os.path.dirname(above)
                else:
                    break

    def _try(self, path: str, value: str) -> None:
        try:
            cgroups.write(path, value)
        except ProcessLookupError:
            pass  # it has ended
        except OSError as error:
            self._warn(path, error)

    def _warn(self, path: str, error: OSError) -> None:
        self.warnings.append(f'control group: "{path}": {error.strerror or error}')


def create(
    name: str, limits: Limits, *, parent: str = PARENT, layout: cgroups.Layout | None = None
) -> Group:
    """Make the group ``parent``/``name`` in the hierarchies there are, and set the limits.

    Never fails: what did not work is in ``Group.warnings``.
    """
    if layout is None:
        layout = cgroups.detect()
    warnings: list[str] = []
    wanted = plans.controllers(limits)
    points = _points(layout, wanted)
    missing = [c for c in wanted if c not in points]
    if missing:
        warnings.append(f"control groups: this host has none for {', '.join(missing)}")
    unique = dict.fromkeys(points.values())
    group = Group((), warnings, layout.version)
    made = []
    for point in unique:
        enabled = tuple(c for c in wanted if points.get(c) == point)
        if _make(group, point, _joined(parent, name), enabled, layout.version):
            made.append(f"{point}/{_joined(parent, name)}")
    group.paths = tuple(made)
    group.points = points
    group.below = _joined(parent, name)
    group.limit(limits)
    return group


def _joined(parent: str, name: str) -> str:
    return f"{parent}/{name}" if parent else name


def existing(name: str, *, parent: str = PARENT, layout: cgroups.Layout | None = None) -> Group:
    """The group that another process made, or what is left of it: to be removed."""
    layout = layout or cgroups.detect()
    points = dict.fromkeys((*(point for _, point in layout.v1), layout.unified))
    paths = (f"{point}/{_joined(parent, name)}" for point in points if point)
    return Group(tuple(p for p in paths if os.path.isdir(p)), [], layout.version)


def names(*, parent: str = PARENT, layout: cgroups.Layout | None = None) -> set[str]:
    """The names of all groups below ``parent``."""
    layout = layout or cgroups.detect()
    found: set[str] = set()
    for point in {*(point for _, point in layout.v1), layout.unified} - {""}:
        try:
            found.update(e.name for e in os.scandir(f"{point}/{parent}") if e.is_dir())
        except OSError:
            pass
    return found


def _points(layout: cgroups.Layout, wanted: tuple[str, ...]) -> dict[str, str]:
    """The mount point for each controller that is to be used."""
    if layout.version == 1:
        return {c: p for c, p in layout.v1 if c in _JOINED or c in wanted}
    if layout.version == 2:
        usable = [c for c in wanted if c in layout.controllers]
        return dict.fromkeys(("", *usable), layout.unified)
    return {}


def _make(group: Group, point: str, path: str, enabled: tuple[str, ...], version: int) -> bool:
    """Make a directory below ``point``, step by step: each level passes on what the next needs."""
    here = point
    for part in path.split("/"):
        if version == 2:
            for controller in enabled:
                if controller not in cgroups.read(f"{here}/cgroup.subtree_control").split():
                    group._try(f"{here}/cgroup.subtree_control", f"+{controller}")
        above, here = here, f"{here}/{part}"
        try:
            os.mkdir(here, 0o755)
        except FileExistsError:
            pass
        except OSError as error:
            group._warn(here, error)
            return False
        if version == 1 and "cpuset" in enabled:
            for file in ("cpuset.cpus", "cpuset.mems"):  # empty ones take no process
                group._try(f"{here}/{file}", cgroups.read(f"{above}/{file}").strip())
    return True
