"""What a test may not leave behind, counted before and after it.

The one rule: count only what this test process can have made (its descendants, its descriptors,
what lies below its own directories), because other tests run on the same machine at the same
time. ``host()`` counts the whole machine, for a run that has it to itself.
"""

from __future__ import annotations

import gc
import glob
import os
import threading
import time

GRACE = 3.0  # seconds given to what goes away by itself
restarted: set[int] = set()  # daemons that a fixture holds and tests may start anew: not counted
pools: list = []  # functions that give the processes of a pool which are nobody's yet: neither


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def children(pid: int) -> list[int]:
    """The pids of a process's children, of all its threads."""
    lists = (_read(path) for path in glob.glob(f"/proc/{pid}/task/*/children"))
    return [int(word) for text in lists for word in text.split()]


def descendants(pid: int) -> list[int]:
    """The pids of all processes below one."""
    found = []
    for child in children(pid):
        found.append(child)
        found += descendants(child)
    return found


def _state(pid: int) -> str:
    """The state letter of a process, empty when it is gone."""
    return _read(f"/proc/{pid}/stat").rpartition(")")[2].strip()[:1]


def lives(pid: int) -> bool:
    """Whether a process is there, and not only its exit status."""
    return _state(pid) not in ("", "Z")


def describe(pid: int) -> str:
    """A process in words: pid and command line (or name)."""
    command = _read(f"/proc/{pid}/cmdline").replace("\0", " ").strip()
    return f"process {pid} {command or _read(f'/proc/{pid}/comm').strip()}"[:300]


def processes() -> set[str]:
    """Living descendants of this process; zombies that came to us as orphans are reaped."""
    found = set()
    others = restarted.union(*(own() for own in pools))
    for pid in descendants(os.getpid()):
        if _state(pid) == "Z":
            _reap(pid)
        elif _state(pid) and pid not in others:
            found.add(describe(pid))
    return found


def _reap(pid: int) -> None:
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        pass


def descriptors() -> set[str]:
    """Open descriptors of this process."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            continue
        if target != f"/proc/{os.getpid()}/fd":
            found.add(f"descriptor {name} {target}")
    return found


def threads() -> set[str]:
    """Living threads of this process."""
    return {f"thread {thread.name}" for thread in threading.enumerate()}


def _lies_below(path: str, directories: list[str]) -> bool:
    return any((path + "/").startswith(d.rstrip("/") + "/") for d in directories)


def mounts(below: list[str]) -> set[str]:
    """Mounts in our namespace at or below some directories."""
    found = set()
    for line in _read("/proc/self/mountinfo").splitlines():
        fields = line.split(" ")
        if _lies_below(fields[4], below):
            found.add(f"mount {fields[0]} {fields[4]} {line.partition(' - ')[2]}")
    return found


def loops(below: list[str]) -> set[str]:
    """Loop devices backed by files below some directories."""
    found = set()
    for path in glob.glob("/sys/block/loop*/loop/backing_file"):
        backing = _read(path).strip()
        if _lies_below(backing, below):
            found.add(f"loop device {path.split('/')[3]} {backing}")
    return found


def mine(below: list[str], *, pure: bool) -> set[str]:
    """What this test process holds; a pure test is not asked about mounts and loop devices."""
    held = processes() | descriptors() | threads()
    return held if pure else held | mounts(below) | loops(below)


def host() -> set[str]:
    """What the whole machine holds that could be of the product."""
    held = mounts(["/"]) | loops(["/"])
    held |= {f"link {name}" for name in os.listdir("/sys/class/net")}
    for pattern in (
        "/run/netns/*", "/run/kata/*", "/var/lib/kata/tmp/*", "/tmp/kata-*",
        "/sys/fs/cgroup/kata*", "/sys/fs/cgroup/*/kata*", "/sys/fs/cgroup/*/*/kata*",
    ):  # fmt: skip
        held |= {f"file {path}" for path in glob.glob(pattern)}
    return held


def left(before: set[str], below: list[str], *, pure: bool) -> list[str]:
    """What is there now and was not before, after a time of grace for what is on its way out."""
    new = mine(below, pure=pure) - before
    if new:
        gc.collect()
    deadline = time.monotonic() + GRACE
    while new and time.monotonic() < deadline:
        time.sleep(0.02)
        new = mine(below, pure=pure) - before
    return sorted(new)
