"""What the kernel says a process may touch, in the words of docs/design/isolation.md."""

from __future__ import annotations

import os
import re
import stat

from kata.linux.capabilities import NAMES
from support.source import CHECKOUT

PAGE = f"{CHECKOUT}/docs/design/isolation.md"
KINDS = ("mnt", "pid", "net", "ipc", "uts", "cgroup", "user")
COLUMNS = ("user", "capabilities", "namespaces", "root", "seccomp", "no new privileges")


def rows() -> dict[str, dict[str, str]]:
    """The first table of the page: process -> column -> cell."""
    with open(PAGE, encoding="utf-8") as file:
        lines = [line.strip() for line in file]
    start = next(i for i, line in enumerate(lines) if line.startswith("| process | user"))
    table = []
    for line in lines[start:]:
        if not line.startswith("|"):
            break
        table.append([cell.strip() for cell in line.strip("|").split("|")])
    head, _, *body = table
    return {row[0]: dict(zip(head, row, strict=True)) for row in body}


def status(pid: int) -> dict[str, str]:
    """/proc/PID/status."""
    with open(f"/proc/{pid}/status", encoding="utf-8") as file:
        return {key: value.strip() for key, _, value in (line.partition(":") for line in file)}


def capabilities(fields: dict[str, str]) -> str:
    """The names of all that is in any set but the bounding one."""
    found = 0
    for name in ("CapPrm", "CapEff", "CapInh", "CapAmb"):
        found |= int(fields[name], 16)
    if not found:
        return "none"
    if found == int(status(os.getpid())["CapPrm"], 16):
        return "all"
    return " ".join(sorted(name for bit, name in enumerate(NAMES) if found >> bit & 1))


def namespaces(pid: int) -> str:
    """Those that are not the test's."""
    own = [
        kind for kind in KINDS
        if os.readlink(f"/proc/{pid}/ns/{kind}") != os.readlink(f"/proc/self/ns/{kind}")
    ]  # fmt: skip
    return " ".join(own) or "none"


def root(pid: int, shared: set[str]) -> str:
    """What a process sees below /."""
    if os.path.samestat(os.stat(f"/proc/{pid}/root"), os.stat("/")) and namespaces(pid) == "none":
        return "host"
    files = {
        os.path.join(path, name)
        for path, _, names in os.walk(f"/proc/{pid}/root") for name in names
    }  # fmt: skip
    own = {f for f in files if f.startswith(f"/proc/{pid}/root/proc/self/fd/")}
    files -= own
    if not files and not own:
        return "empty"
    if {os.path.basename(f) for f in files} <= shared:
        return "share fds" if own else "share"
    return f"files: {sorted(files)}"


def facts(pid: int, shared: set[str]) -> dict[str, str]:
    """A row as the kernel has it."""
    fields = status(pid)
    uids = set(fields["Uid"].split() + fields["Gid"].split())
    return {
        "user": "root" if uids == {"0"} else "sandbox" if len(uids) == 1 else f"{uids}",
        "capabilities": capabilities(fields),
        "namespaces": namespaces(pid),
        "root": root(pid, shared),
        "seccomp": "filter" if fields["Seccomp"] == "2" else "none",
        "no new privileges": "yes" if fields["NoNewPrivs"] == "1" else "no",
    }


def kind_of(pid: int, number: str, places: dict[str, str]) -> str:
    """What a descriptor is, in the words of the page."""
    path = f"/proc/{pid}/fd/{number}"
    text = os.readlink(path)
    for pattern, kind in (
        (r"/dev/null|/null", "null"), (r"pipe:", "pipe"), (r"socket:", "socket"),
        (r"anon_inode:\[?eventfd", "eventfd"), (r"anon_inode:\[?eventpoll", "epoll"),
        (r"anon_inode:\[?signalfd", "signalfd"), (r"anon_inode:\[?timerfd", "timerfd"),
        (r"(anon_inode:\[?)?pidfd", "pidfd"), (r"/dev/kvm|anon_inode:kvm", "kvm"),
        (r"(.*templates/.*)?/memory$|/memfd:memory", "memory"),
        (r"(.*templates/.*)?/state$", "state"),
        (r"/dev/net/tun", "tap"), (r"/dev/vhost-net", "vhost"),
        (r".*\.erofs$", "layers"), (r"(mnt|net|pid|ipc|uts|cgroup):\[", "namespace"),
    ):  # fmt: skip
        if re.match(pattern, text):
            return kind
    if text.startswith("/shared/"):  # as virtiofsd has it
        return "share"
    for place, kind in places.items():
        if text.startswith(place):
            return kind
    if number in ("0", "1", "2"):
        return "stdio"
    if re.fullmatch(r"/\d+(/.*)?|/proc/.*", text):
        return "proc"
    return "share" if stat.S_ISDIR(os.stat(path).st_mode) else f"unknown: {text}"


def check(name: str, pid: int, shared: set[str], places: dict[str, str]) -> None:
    """A process has what the row of this name says, and no more."""
    row = dict(rows()[name])
    if row["capabilities"].startswith("CAP_"):
        row["capabilities"] = " ".join(sorted(row["capabilities"].split()))
    seen = facts(pid, shared)
    if row["root"] == "share" and not shared and seen["root"] == "empty":
        row["root"] = "empty"
    assert seen == {c: row[c] for c in COLUMNS}, name
    found = {kind_of(pid, number, places) for number in os.listdir(f"/proc/{pid}/fd")}
    assert found <= set(row["descriptors"].split()), (name, found)
