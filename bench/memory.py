"""What sandboxes cost in memory: proportional and private set sizes of their processes.

Proportional set size (PSS) counts a page that several map in equal parts: sums over processes are
right. Source: Documentation/filesystems/proc.rst, smaps_rollup.
"""

from __future__ import annotations

import glob
import time

import arms

SETTLE_S = 3.0
FIELDS = ("Rss", "Pss", "Private_Clean", "Private_Dirty", "Shared_Clean", "Shared_Dirty")


def of(pid: int) -> dict[str, float]:
    """Sizes of one process, MiB."""
    found = {}
    with open(f"/proc/{pid}/smaps_rollup", encoding="utf-8") as stream:
        for line in stream:
            name, _, rest = line.partition(":")
            if name in FIELDS:
                found[name] = int(rest.split()[0]) / 1024
    found["Private"] = found["Private_Clean"] + found["Private_Dirty"]
    return found


def children(pid: int) -> list[int]:
    """Living children of all threads of a process."""
    found = []
    for path in glob.glob(f"/proc/{pid}/task/*/children"):
        with open(path, encoding="utf-8") as stream:
            found += [int(word) for word in stream.read().split()]
    return found


def name_of(pid: int) -> str:
    """The name the kernel has for a process."""
    with open(f"/proc/{pid}/comm", encoding="utf-8") as stream:
        return stream.read().strip()


def sandboxes(kata: arms.Kata, image: str, count: int, *options: str) -> dict[str, object]:
    """``count`` sandboxes at once: means for each process and in sum, MiB."""
    with arms.running(kata, image, count, *options) as names:
        time.sleep(SETTLE_S)
        sums: dict[str, float] = {}
        processes: dict[str, dict[str, float]] = {}
        for name in names:
            supervisor = int(kata.inspect(name)["pid"])
            for role, pid in [("supervisor", supervisor), *roles(supervisor)]:
                for field, size in of(pid).items():
                    sums[field] = sums.get(field, 0) + size / count
                    kept = processes.setdefault(role, {})
                    kept[field] = kept.get(field, 0) + size / count
    return {"count": count, "sandbox": rounded(sums),
            "processes": {role: rounded(sizes) for role, sizes in processes.items()}}  # fmt: skip


def roles(supervisor: int) -> list[tuple[str, int]]:
    """The other processes of a sandbox, by what they are."""
    found = []
    for pid in children(supervisor):
        name = name_of(pid)
        found.append(("vmm" if name.startswith("qemu") else name, pid))
    return found


def raw(command: list[str], count: int) -> dict[str, object]:
    """``count`` idle guests of QEMU alone: means, MiB."""
    with arms.held(command, count) as pids:
        time.sleep(SETTLE_S)
        sums: dict[str, float] = {}
        for pid in pids:
            for field, size in of(pid).items():
                sums[field] = sums.get(field, 0) + size / count
    return {"count": count, "sandbox": rounded(sums)}


def rounded(sizes: dict[str, float]) -> dict[str, float]:
    """Sizes with two places."""
    return {name: round(size, 2) for name, size in sizes.items()}
