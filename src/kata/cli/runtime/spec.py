"""``kata-runtime spec``: a config.json to begin with, as ``runc spec`` writes it."""

from __future__ import annotations

import os

from kata.errors import AlreadyExists, HostError
from kata.oci.defaults import MASKED_PATHS, READONLY_PATHS
from kata.oci.version import VERSION
from kata.wire.quickjson import dumps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from kata.cli.parse import Options

_CAPABILITIES = ("CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE")
_SECURE = ("nosuid", "noexec", "nodev")
_MOUNTS = (
    ("/proc", "proc", "proc", ()),
    ("/dev", "tmpfs", "tmpfs", ("nosuid", "strictatime", "mode=755", "size=65536k")),
    ("/dev/pts", "devpts", "devpts",
     ("nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5")),
    ("/dev/shm", "tmpfs", "shm", (*_SECURE, "mode=1777", "size=65536k")),
    ("/dev/mqueue", "mqueue", "mqueue", _SECURE),
    ("/sys", "sysfs", "sysfs", (*_SECURE, "ro")),
    ("/sys/fs/cgroup", "cgroup", "cgroup", (*_SECURE, "relatime", "ro")),
)  # fmt: skip


def run(options: Options) -> int:
    """Write it where there is none."""
    path = f"{options.bundle or '.'}/config.json"
    try:
        with open(path, "x", encoding="utf-8") as file:
            spec = rootless(document()) if options.rootless else document()
            file.write(dumps(spec, indent=1).replace("\n ", "\n\t") + "\n")
    except FileExistsError:
        raise AlreadyExists(
            f"File {path} exists. Remove it first", hint=f"rm {os.path.abspath(path)}"
        ) from None
    except OSError as error:
        raise HostError(f'cannot write "{path}"', why=error.strerror or "") from None
    return 0


def rootless(spec: dict[str, Any]) -> dict[str, Any]:
    """The same in a user namespace that holds the caller alone, changed as runc changes its own.

    But for one thing: the network namespace stays, for without it the network were the host's.
    """
    mounts = []
    for mount in spec["mounts"]:
        if mount["destination"] == "/sys":
            options = ["rbind", *_SECURE, "ro"]
            mount = {"destination": "/sys", "type": "none", "source": "/sys", "options": options}
        elif mount.get("options"):
            kept = [o for o in mount["options"] if not o.startswith(("uid=", "gid="))]
            mount = {**mount, "options": kept}
        mounts.append(mount)
    linux = {name: value for name, value in spec["linux"].items() if name != "resources"}
    linux["namespaces"] = [*linux["namespaces"], {"type": "user"}]
    linux["uidMappings"] = [{"containerID": 0, "hostID": os.geteuid(), "size": 1}]
    linux["gidMappings"] = [{"containerID": 0, "hostID": os.getegid(), "size": 1}]
    return {**spec, "mounts": mounts, "linux": linux}


def document() -> dict[str, Any]:
    """A shell with a terminal in a read-only root file system."""
    sets = {name: list(_CAPABILITIES) for name in ("bounding", "effective", "permitted")}
    return {
        "ociVersion": VERSION,
        "process": {
            "terminal": True,
            "user": {"uid": 0, "gid": 0},
            "args": ["sh"],
            "env": [
                "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm",
            ],
            "cwd": "/",
            "capabilities": sets,
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
            "noNewPrivileges": True,
        },
        "root": {"path": "rootfs", "readonly": True},
        "hostname": "kata",
        "mounts": [
            {"destination": d, "type": t, "source": s, **({"options": list(o)} if o else {})}
            for d, t, s, o in _MOUNTS
        ],
        "linux": {
            "resources": {"devices": [{"allow": False, "access": "rwm"}]},
            "namespaces": [
                {"type": kind} for kind in ("pid", "network", "ipc", "uts", "mount", "cgroup")
            ],
            "maskedPaths": list(MASKED_PATHS),
            "readonlyPaths": list(READONLY_PATHS),
        },
    }  # fmt: skip
