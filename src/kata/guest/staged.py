"""The standard mounts that a parked container has ready, and which of them a spec can use.

``choose`` is pure. The rule: a staged mount is used only where the specification asks for the
same type and options at the same place; otherwise it is dropped and mounted afresh.
"""

from __future__ import annotations

from kata.guest.spec import namespaces
from kata.wire.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_SECURE = ("nosuid", "noexec", "nodev")
# Docker's (and containerd's, and Podman's) own, in order: destination, type, options
MOUNTS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("/proc", "proc", _SECURE),
    ("/dev", "tmpfs", ("nosuid", "strictatime", "mode=755", "size=65536k")),
    ("/dev/pts", "devpts",
     ("nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5")),
    ("/sys", "sysfs", (*_SECURE, "ro")),
    ("/sys/fs/cgroup", "cgroup", ("ro", *_SECURE)),
    ("/dev/mqueue", "mqueue", _SECURE),
    ("/dev/shm", "tmpfs", (*_SECURE, "mode=1777", "size=67108864")),
)  # fmt: skip
MASKED = (
    "/proc/asound", "/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
    "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware",
    "/sys/devices/virtual/powercap",
)  # fmt: skip
READONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")
# the device rules that are Docker's own, beyond what every container is granted
DEVICE_RULES = (
    {"allow": False, "access": "rwm"},
    {"allow": True, "type": "c", "major": 5, "minor": 1, "access": "rwm"},
    {"allow": False, "type": "c", "major": 10, "minor": 229, "access": "rwm"},
)
# the rules as Docker's configuration has them: they compile to the same program
DOCKER_RULES: list[dict[str, Any]] = [
    {"allow": False, "access": "rwm"},
    *(
        {"allow": True, "type": "c", "major": major, "minor": minor, "access": "rwm"}
        for major, minor in ((1, 5), (1, 3), (1, 9), (1, 8), (5, 0), (5, 1))
    ),
    {"allow": False, "type": "c", "major": 10, "minor": 229, "access": "rwm"},
]
# kernel parameters that a parked container has set: name -> (value, the kernel's own default)
SYSCTLS = {
    "net.ipv4.ip_unprivileged_port_start": ("0", "1024"),
    "net.ipv4.ping_group_range": ("0 2147483647", "1 0"),
}
# files that Docker gives every container: made with a prepared root, written later
FILES = ("/etc/hostname", "/etc/hosts", "/etc/machine-id")
# Docker's default capabilities: what a parked container's bounding set is limited to
CAPABILITIES = (
    "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW",
    "CAP_SETGID", "CAP_SETUID", "CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT", "CAP_KILL", "CAP_AUDIT_WRITE",
)  # fmt: skip
TOPS = ("/proc", "/dev", "/sys")


@record
class Choice:
    """What becomes of the staged mounts: paths are those in the container."""

    moved: frozenset[str]  # of TOPS: moved into the root
    dropped: tuple[str, ...]  # unmounted from the stage first, masks and the like included
    ready: frozenset[str]  # destinations that need no mounting any more
    masked: frozenset[str]  # of the masked paths, those done
    readonly: frozenset[str]


NOTHING = Choice(frozenset(), (), frozenset(), frozenset(), frozenset())


def of(spec: dict[str, Any]) -> Choice:
    """What to use of the stage for a specification."""
    linux = spec.get("linux") or {}
    still = {kind for kind, path in namespaces(spec).items() if not path}
    return choose(
        spec.get("mounts") or [], linux.get("maskedPaths") or [],
        linux.get("readonlyPaths") or [], still,
    )  # fmt: skip


def choose(
    mounts: list[dict[str, Any]], masked: list[str], readonly: list[str], private: set[str]
) -> Choice:
    """What to use of the stage; ``private`` are the kinds of namespaces that stay the stage's."""
    wanted = {m["destination"].rstrip("/"): m for m in mounts}
    staged = {path: (kind, options) for path, kind, options in MOUNTS}
    equal = {
        path for path, (kind, options) in staged.items()
        if path in wanted and _same(wanted[path], kind, options) and _usable(path, private)
    }  # fmt: skip
    moved = {top for top in TOPS if top in equal}
    ready = {path for path in equal if _top(path) in moved}
    dropped = [path for path in staged if _top(path) in moved and path not in equal]
    done: list[frozenset[str]] = []
    for have, want in ((MASKED, set(masked)), (READONLY, set(readonly))):
        dropped += [p for p in have if _top(p) in moved and p not in want]
        done.append(frozenset(p for p in have if _top(p) in moved and p in want))
    return Choice(frozenset(moved), tuple(dropped), frozenset(ready), *done)


def _top(path: str) -> str:
    return "/" + path.split("/")[1]


def _same(mount: dict[str, Any], kind: str, options: tuple[str, ...]) -> bool:
    return mount.get("type") == kind and set(mount.get("options") or ()) == set(options)


def _usable(path: str, private: set[str]) -> bool:
    needs = {"/sys": "network", "/dev/mqueue": "ipc", "/sys/fs/cgroup": "cgroup"}.get(path)
    return needs is None or needs in private
