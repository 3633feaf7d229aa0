"""Bundles: a root file system of busybox and the probe, and a config.json like an engine's.

The one rule: a bundle has a root file system of its own, so that no case sees another's files.
"""

from __future__ import annotations

import json
import os
import subprocess

from support.busybox import GROUP, PASSWD
from support.host import need_tool

SOURCE = f"{os.path.dirname(os.path.abspath(__file__))}/probe.c"
APPLETS = """
    sh ash cat chmod chown cp cut dd df echo env false find grep head hostname id ip ionice kill ln
    ls mkdir mkfifo mknod mount mv nc od pidof ping printf ps readlink rm rmdir sed seq sleep sort
    stat stty tail test touch tr true tty umount uname wc which ipcs tee md5sum
""".split()  # noqa: SIM905
DIRECTORIES = ("bin", "dev", "etc", "home/ann", "proc", "root", "sys", "tmp", "var")
CAPABILITIES = [
    "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW",
    "CAP_SETGID", "CAP_SETUID", "CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT", "CAP_KILL", "CAP_AUDIT_WRITE",
]  # fmt: skip
MOUNTS = [
    {"destination": "/proc", "type": "proc", "source": "proc",
     "options": ["nosuid", "noexec", "nodev"]},
    {"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
     "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
    {"destination": "/dev/pts", "type": "devpts", "source": "devpts",
     "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]},
    {"destination": "/dev/shm", "type": "tmpfs", "source": "shm",
     "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]},
    {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue",
     "options": ["nosuid", "noexec", "nodev"]},
    {"destination": "/sys", "type": "sysfs", "source": "sysfs",
     "options": ["nosuid", "noexec", "nodev", "ro"]},
]  # fmt: skip
NAMESPACES = ("pid", "ipc", "uts", "mount", "network")
CGROUP = {
    "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
    "options": ["nosuid", "noexec", "nodev", "relatime", "ro"],
}  # fmt: skip


def config(*args: str, mounts: tuple[dict, ...] = (), **changes) -> dict:
    """A config.json that runs ``args``, with more mounts, and nested changes over the rest."""
    spec = {
        "ociVersion": "1.0.2",
        "process": {
            "args": list(args),
            "cwd": "/",
            "env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"],
            "user": {"uid": 0, "gid": 0},
            "capabilities": {
                name: list(CAPABILITIES) for name in ("bounding", "effective", "permitted")
            },
            "noNewPrivileges": True,
        },
        "root": {"path": "rootfs"},
        "hostname": "conformance",
        "mounts": [*json.loads(json.dumps(MOUNTS)), *mounts],
        "linux": {
            "namespaces": [{"type": name} for name in NAMESPACES],
            "resources": {"devices": [{"allow": False, "access": "rwm"}]},
        },
    }
    return merged(spec, changes)


def merged(value: dict, changes: dict) -> dict:
    """Nested tables merged; None takes a key away, all else replaces."""
    result = dict(value)
    for key, change in changes.items():
        if change is None:
            result.pop(key, None)
        elif isinstance(change, dict) and isinstance(result.get(key), dict):
            result[key] = merged(result[key], change)
        else:
            result[key] = change
    return result


def bind(source: str, destination: str, *options: str) -> dict:
    """A mount entry for a bind mount, as engines write them."""
    options = options or ("rbind", "rw", "rprivate")
    return {
        "destination": destination, "type": "bind", "source": source, "options": list(options)
    }  # fmt: skip


def tmpfs(destination: str, *options: str) -> dict:
    """A mount entry for a tmpfs."""
    return {
        "destination": destination, "type": "tmpfs", "source": "tmpfs", "options": list(options)
    }  # fmt: skip


def namespaces(**paths: str | None) -> list[dict]:
    """The usual namespaces; a path joins one, None leaves it out, an empty text adds a new one."""
    chosen: dict[str, str | None] = dict.fromkeys(NAMESPACES, "")
    chosen |= paths
    return [
        {"type": name, "path": path} if path else {"type": name}
        for name, path in chosen.items()
        if path is not None
    ]


class Kit:
    """What the root file systems are made of: busybox and the probe, linked, not copied."""

    def __init__(self, directory: str) -> None:
        self.directory = directory
        os.makedirs(directory)
        subprocess.run(["cp", need_tool("busybox"), f"{directory}/busybox"], check=True)
        subprocess.run(
            [need_tool("gcc"), "-static", "-O1", "-Wall", "-Werror",
             "-o", f"{directory}/probe", SOURCE],
            check=True,
        )  # fmt: skip

    def make_rootfs(self, path: str) -> str:
        """A root file system at ``path``."""
        for name in DIRECTORIES:
            os.makedirs(f"{path}/{name}")
        os.chmod(f"{path}/tmp", 0o1777)
        os.chown(f"{path}/home/ann", 1000, 1000)
        for name in ("busybox", "probe"):
            os.link(f"{self.directory}/{name}", f"{path}/bin/{name}")
        for applet in APPLETS:
            os.symlink("busybox", f"{path}/bin/{applet}")
        for name, text in (("passwd", PASSWD), ("group", GROUP)):
            with open(f"{path}/etc/{name}", "w", encoding="utf-8") as file:
                file.write(text)
        return path

    def make_bundle(self, path: str, spec: dict | str) -> str:
        """A bundle at ``path``; a text is written as it is."""
        os.makedirs(path)
        self.make_rootfs(f"{path}/rootfs")
        with open(f"{path}/config.json", "w", encoding="utf-8") as file:
            file.write(spec if isinstance(spec, str) else json.dumps(spec))
        return path
