"""The host's control groups: which there are, where, and the files of one group.

The one rule: nothing here decides; it finds hierarchies, writes files, and says what went wrong.
Version 1 (a hierarchy for each controller), version 2 (one for all), and hosts with both.

Sources: Documentation/admin-guide/cgroup-v1/cgroups.rst, cgroup-v2.rst, proc_pid_mountinfo(5).
"""

from __future__ import annotations

import os
import time

from kata.wire.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_WAIT_S, _STEP_S = 2.0, 0.005
_SIGKILL = 9


@record
class Layout:
    """``v1``: (controller, mount point) pairs; ``unified``: version 2's mount point, or empty.

    ``controllers`` are those that version 2 has to give. With any of version 1's for memory,
    processors or tasks the host counts as version 1.
    """

    v1: tuple[tuple[str, str], ...] = ()
    unified: str = ""
    controllers: tuple[str, ...] = ()

    @property
    def version(self) -> int:
        """1, 2, or 0 for none."""
        if self.v1:
            return 1
        return 2 if self.unified else 0


def parse(mountinfo: str, controllers: str = "") -> Layout:
    """The layout from the texts of /proc/self/mountinfo and version 2's ``cgroup.controllers``."""
    v1: dict[str, str] = {}
    unified = ""
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        fields, rest = before.split(" "), after.split(" ")
        if len(fields) < 5 or len(rest) < 3:
            continue
        point = _unescaped(fields[4])
        if rest[0] == "cgroup2":
            unified = unified or point
        elif rest[0] == "cgroup":
            for option in rest[2].split(","):
                if "=" not in option and option not in ("rw", "ro", "xattr", "clone_children"):
                    v1.setdefault(option, point)
    return Layout(tuple(v1.items()), unified, tuple(controllers.split()))


def detect() -> Layout:
    """The layout of the host that we are on."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as stream:
        text = stream.read()
    found = parse(text)
    if found.version != 2:
        return found
    return parse(text, read(f"{found.unified}/cgroup.controllers"))


def _unescaped(text: str) -> str:
    """A path as it is: mountinfo writes space, tab, newline and backslash as octal numbers."""
    for code, plain in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(code, plain)
    return text


def read(path: str) -> str:
    """A file of a group, empty where it cannot be read."""
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            return stream.read()
    except OSError:
        return ""


def write(path: str, value: str) -> None:
    """Write a file of a group in one call, as the kernel wants it. Raises ``OSError``."""
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, value.encode())
    finally:
        os.close(fd)


def members(group: str) -> list[int]:
    """The processes of a group, without those of groups below it."""
    return [int(word) for word in read(f"{group}/cgroup.procs").split()]


def follow(pid: int) -> None:
    """Go to the groups that another process is in, all of us, where ours differ.

    Raises ``OSError``.
    """
    layout = detect()
    ours = _places("self")
    for controllers, path in _places(pid).items():
        point = dict(layout.v1).get(controllers.split(",")[0]) if controllers else layout.unified
        if point and ours.get(controllers) != path:
            write(f"{point}{path}/cgroup.procs", str(os.getpid()))


def _places(pid: int | str) -> dict[str, str]:
    """The path in each hierarchy, by its controllers; version 2's has none (cgroups(7))."""
    with open(f"/proc/{pid}/cgroup", encoding="utf-8") as file:
        lines = file.read().splitlines()
    return {controllers: path for _, controllers, path in (line.split(":", 2) for line in lines)}


def below(group: str) -> Iterator[str]:
    """The group's directory and all below it, the deepest first."""
    try:
        entries = [e.path for e in os.scandir(group) if e.is_dir(follow_symlinks=False)]
    except (FileNotFoundError, NotADirectoryError):
        return
    for path in entries:
        yield from below(path)
    yield group


def kill(group: str) -> None:
    """Kill every process in the group and below, whatever they fork meanwhile."""
    try:
        write(f"{group}/cgroup.kill", "1")  # version 2, Linux 5.14
    except OSError:
        pass
    else:
        return
    own = os.getpid()
    for _ in range(100):
        found = [pid for path in below(group) for pid in members(path) if pid not in (0, own)]
        if not found:
            return
        for pid in found:
            try:
                os.kill(pid, _SIGKILL)
            except ProcessLookupError:
                pass
        time.sleep(_STEP_S)


def remove(groups: Iterable[str], wait_s: float = _WAIT_S) -> list[str]:
    """Remove groups and all below, those that are gone already too; gives what stayed, and why.

    A process that was killed keeps its group until the kernel has taken it down: hence the wait.
    """
    end = time.monotonic() + wait_s
    left = list(groups)
    while True:
        stayed = [(group, why) for group in left if (why := _rmdir(group))]
        if not stayed or time.monotonic() > end:
            return [f"{group}: {why}" for group, why in stayed]
        left = [group for group, _ in stayed]
        time.sleep(_STEP_S)


def _rmdir(group: str) -> str:
    for path in below(group):
        try:
            os.rmdir(path)
        except FileNotFoundError:
            pass
        except OSError as error:
            return error.strerror or str(error)
    return ""
