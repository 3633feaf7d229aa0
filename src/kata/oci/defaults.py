"""The configuration of a container as Docker would write it, from what was asked.

The one rule: pure, and Docker's answer wherever Docker has one (its default capabilities,
mounts, masked paths, environment), so that what runs in Docker runs the same here.
Source: Docker 28's ``oci/defaults.go``, ``daemon/oci_linux.go``, ``oci/caps``.
"""

from __future__ import annotations

from kata.errors import InvalidInput
from kata.oci.options import UNLIMITED, Rlimit, Tmpfs, Volume
from kata.oci.users import User
from kata.oci.version import VERSION
from kata.wire.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_DEFAULT = (
    "CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD NET_RAW SETGID SETUID SETFCAP SETPCAP "
    "NET_BIND_SERVICE SYS_CHROOT KILL AUDIT_WRITE"
)
_ALL = (  # in the order of their numbers
    "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP "
    "LINUX_IMMUTABLE NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER "
    "SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE "
    "SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP "
    "MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF "
    "CHECKPOINT_RESTORE"
)
DEFAULT_CAPABILITIES = tuple(f"CAP_{name}" for name in _DEFAULT.split())
ALL_CAPABILITIES = tuple(f"CAP_{name}" for name in _ALL.split())
MASKED_PATHS = (
    "/proc/asound", "/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
    "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware",
    "/sys/devices/virtual/powercap",
)  # fmt: skip
READONLY_PATHS = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")
NAMESPACES = ("mount", "network", "uts", "pid", "ipc", "cgroup")
# what Docker gets from its service file and its hosts; the guest's kernel has much less
DEFAULT_RLIMITS = (
    Rlimit("nofile", 1024, 524288),
    Rlimit("nproc", UNLIMITED, UNLIMITED),
)
_SECURE = ("nosuid", "noexec", "nodev")
_MOUNTS = (
    ("/proc", "proc", "proc", _SECURE),
    ("/dev", "tmpfs", "tmpfs", ("nosuid", "strictatime", "mode=755", "size=65536k")),
    (
        "/dev/pts", "devpts", "devpts",
        ("nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"),
    ),
    ("/sys", "sysfs", "sysfs", (*_SECURE, "ro")),
    ("/sys/fs/cgroup", "cgroup", "cgroup", ("ro", *_SECURE)),
    ("/dev/mqueue", "mqueue", "mqueue", _SECURE),
    ("/dev/shm", "tmpfs", "shm", (*_SECURE, "mode=1777")),
)  # fmt: skip
_DEVICES = ((1, 5), (1, 3), (1, 9), (1, 8), (5, 0), (5, 1))  # zero null urandom random tty console
_PERIOD = 100_000  # µs


@record
class ProcessRequest:
    """The first process: what it runs, as whom, where, and how."""

    args: tuple[str, ...]
    env: tuple[str, ...] = ()
    cwd: str = "/"
    user: User = User()
    terminal: bool = False
    console_size: tuple[int, int] = (0, 0)  # rows, columns
    rlimits: tuple[Rlimit, ...] = ()
    no_new_privileges: bool = False
    oom_score_adj: int = 0
    umask: int | None = None


@record
class Resources:
    """Limits; 0 is none. ``memory`` in bytes, ``nano_cpus`` in billionths of a processor."""

    memory: int = 0
    nano_cpus: int = 0
    pids: int = 0


@record
class ContainerRequest:
    """A container as the command line asks for it."""

    process: ProcessRequest
    hostname: str
    root: str = "rootfs"
    readonly: bool = False
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    volumes: tuple[Volume, ...] = ()
    tmpfs: tuple[Tmpfs, ...] = ()
    sysctls: tuple[tuple[str, str], ...] = ()
    resources: Resources = Resources()
    shm_size: int = 64 << 20
    annotations: tuple[tuple[str, str], ...] = ()


def container_spec(request: ContainerRequest) -> dict[str, Any]:
    """The config.json of a container. Raises ``InvalidInput`` for an unknown capability."""
    capabilities = list(tweaked_capabilities(request.cap_add, request.cap_drop))
    return {
        "ociVersion": VERSION,
        "process": {
            **process_spec(request.process, request.hostname),
            "capabilities": {
                "bounding": capabilities, "effective": capabilities, "permitted": capabilities,
            },
        },
        "root": {"path": request.root, "readonly": request.readonly},
        "hostname": request.hostname,
        "mounts": _mounts(request),
        **({"annotations": dict(request.annotations)} if request.annotations else {}),
        "linux": {
            "namespaces": [{"type": kind} for kind in NAMESPACES],
            "devices": [],
            "resources": _resources(request.resources),
            "maskedPaths": list(MASKED_PATHS),
            "readonlyPaths": list(READONLY_PATHS),
            "sysctl": {
                "net.ipv4.ip_unprivileged_port_start": "0",
                "net.ipv4.ping_group_range": "0 2147483647",
                **dict(request.sysctls),
            },
        },
    }  # fmt: skip


def process_spec(request: ProcessRequest, hostname: str) -> dict[str, Any]:
    """OCI's process object without its capabilities."""
    user = request.user
    limits = {r.name: r for r in (*DEFAULT_RLIMITS, *request.rlimits)}
    process: dict[str, Any] = {
        "terminal": request.terminal,
        "user": {"uid": user.uid, "gid": user.gid, "additionalGids": [user.gid, *user.groups]},
        "args": list(request.args),
        "env": list(full_environment(request, hostname)),
        "cwd": request.cwd,
        "rlimits": [
            {"type": f"RLIMIT_{r.name.upper()}", "soft": r.soft, "hard": r.hard}
            for r in limits.values()
        ],
        "noNewPrivileges": request.no_new_privileges,
        "oomScoreAdj": request.oom_score_adj,
    }
    rows, columns = request.console_size
    if request.terminal and rows and columns:
        process["consoleSize"] = {"height": rows, "width": columns}
    if request.umask is not None:
        process["user"]["umask"] = request.umask
    return process


def full_environment(request: ProcessRequest, hostname: str) -> tuple[str, ...]:
    """PATH, HOSTNAME, TERM on a terminal, then what was given; HOME last unless given."""
    base = [PATH, f"HOSTNAME={hostname}"]
    if request.terminal:
        base.append("TERM=xterm")
    env = overlaid(tuple(base), request.env)
    if any(entry.startswith("HOME=") for entry in env):
        return env
    return (*env, f"HOME={request.user.home}")


def overlaid(base: tuple[str, ...], given: tuple[str, ...]) -> tuple[str, ...]:
    """Variables with others over them, in place; a name without ``=`` removes its variable."""
    values = {entry.partition("=")[0]: entry for entry in base}
    for entry in given:
        name, equals, _ = entry.partition("=")
        if equals:
            values[name] = entry
        else:
            values.pop(name, None)
    return tuple(values.values())


def image_environment(image: tuple[str, ...], given: tuple[str, ...]) -> tuple[str, ...]:
    """What was given, then what the image says of other variables (Docker's order)."""
    names = {entry.partition("=")[0] for entry in given}
    return (*given, *(e for e in image if e.partition("=")[0] not in names))


def tweaked_capabilities(
    add: tuple[str, ...], drop: tuple[str, ...], basics: tuple[str, ...] = DEFAULT_CAPABILITIES
) -> tuple[str, ...]:
    """Docker's rule: names with or without ``CAP_``, in any case; ``ALL`` on either side."""
    added = [_capability(name) for name in add]
    dropped = [_capability(name) for name in drop]
    if "ALL" in added:
        return tuple(c for c in ALL_CAPABILITIES if c not in dropped)
    kept = [] if "ALL" in dropped else [c for c in basics if c not in dropped]
    return tuple(dict.fromkeys((*kept, *added)))


def _capability(text: str) -> str:
    name = text.upper()
    if name == "ALL":
        return name
    name = name if name.startswith("CAP_") else f"CAP_{name}"
    if name not in ALL_CAPABILITIES:
        raise InvalidInput(f'unknown capability: "{name}"', why="the kernel has none of this name")
    return name


def _mounts(request: ContainerRequest) -> list[dict[str, Any]]:
    """The standard mounts, then the asked ones, those of fewer path components first."""
    asked: list[dict[str, Any]] = [
        {
            "destination": v.destination, "type": "bind", "source": v.source,
            "options": ["rbind", *(("ro",) if v.readonly else ()), v.propagation],
        }
        for v in request.volumes
    ] + [
        {
            "destination": t.destination, "type": "tmpfs", "source": "tmpfs",
            "options": list(t.options),
        }
        for t in request.tmpfs
    ]  # fmt: skip
    places: set[str] = set()
    for mount in asked:
        if mount["destination"] in places:
            raise InvalidInput(f'duplicate mount point: "{mount["destination"]}"')
        places.add(mount["destination"])
    asked.sort(key=lambda mount: mount["destination"].count("/"))
    return [
        _standard(request, mount)
        for mount in _MOUNTS
        if mount[0] not in places and not ("/dev" in places and mount[0].startswith("/dev/"))
    ] + asked


def _standard(
    request: ContainerRequest, mount: tuple[str, str, str, tuple[str, ...]]
) -> dict[str, Any]:
    destination, kind, source, options = mount
    if destination == "/dev/shm":
        options = (*options, f"size={request.shm_size}")
    return {"destination": destination, "type": kind, "source": source, "options": list(options)}


def _resources(limits: Resources) -> dict[str, Any]:
    rules: list[dict[str, Any]] = [{"allow": False, "access": "rwm"}]
    rules += [
        {"allow": True, "type": "c", "major": major, "minor": minor, "access": "rwm"}
        for major, minor in _DEVICES
    ]
    rules.append({"allow": False, "type": "c", "major": 10, "minor": 229, "access": "rwm"})
    out: dict[str, Any] = {"devices": rules}
    if limits.memory:
        out["memory"] = {"limit": limits.memory}
    if limits.nano_cpus:
        quota = max(limits.nano_cpus * _PERIOD // 1_000_000_000, 1000)
        out["cpu"] = {"quota": quota, "period": _PERIOD}
    if limits.pids:
        out["pids"] = {"limit": limits.pids}
    return out
