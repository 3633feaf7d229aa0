"""What a pod's containers find in /etc and /dev/shm, where containerd leaves that to the shim.

With a container for the sandbox containerd writes these files itself and mounts them; with the
Sandbox API it mounts what is there, which is nothing. The rule: they lie in the sandbox's bundle,
and what containerd mounts goes before them.
Source: containerd ``internal/cri/server/podsandbox/sandbox_run_linux.go`` (``setupSandboxFiles``).
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from kata.wire.containerd_sandbox import PodConfig

_FILES = (
    ("/etc/hostname", "hostname"), ("/etc/hosts", "hosts"), ("/etc/resolv.conf", "resolv.conf"),
)  # fmt: skip
_NEW = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
_SHM = "/dev/shm"
_SHM_BYTES = 64 << 20  # of containerd's own tmpfs (``defaultShmSize``)
_TMPFS_MAGIC = 0x01021994  # statfs(2)


def write(bundle: str, pod: PodConfig) -> None:
    """Write a pod's files. Raises ``OSError``."""
    dns = pod.dns_config
    texts = {
        "hostname": f"{pod.hostname or os.uname().nodename}\n".encode(),
        "hosts": _of_the_host("/etc/hosts"),
        "resolv.conf": resolver(dns.servers, dns.searches, dns.options) if dns is not None else b"",
    }  # fmt: skip
    texts["resolv.conf"] = texts["resolv.conf"] or _of_the_host("/etc/resolv.conf")
    for name, text in texts.items():
        fd = os.open(f"{bundle}/{name}", _NEW, 0o644)
        try:
            os.write(fd, text)
        finally:
            os.close(fd)
    if _is_memory(bundle):  # which makes of it memory that the guest's containers share
        os.makedirs(f"{bundle}/shm", mode=0o1777, exist_ok=True)


def resolver(servers: list[str], searches: list[str], options: list[str]) -> bytes:
    """The text of a resolv.conf; empty if nothing was said."""
    lines = [f"search {' '.join(searches)}"] if searches else []
    lines += [f"nameserver {server}" for server in servers]
    lines += [f"options {' '.join(options)}"] if options else []
    return "".join(f"{line}\n" for line in lines).encode()


def add_mounts(spec: dict[str, Any], bundle: str) -> None:
    """Have a container mount those of the files that are there."""
    mounts: list[dict[str, Any]] = spec.get("mounts") or []
    access = "ro" if (spec.get("root") or {}).get("readonly") else "rw"
    if os.path.isdir(f"{bundle}/shm"):
        mounts = [m for m in mounts if (_place(m), m.get("type")) != (_SHM, "tmpfs")]
    taken = {_place(mount) for mount in mounts}
    for destination, name in (*_FILES, (_SHM, "shm")):
        if destination in taken or not os.path.exists(f"{bundle}/{name}"):
            continue
        options = ["rbind", "rprivate", "rw" if destination == _SHM else access]
        options += [f"size={_SHM_BYTES}"] if destination == _SHM else []
        mounts.append({
            "destination": destination, "type": "bind", "source": f"{bundle}/{name}",
            "options": options,
        })  # fmt: skip
    spec["mounts"] = mounts


def _place(mount: dict[str, Any]) -> str:
    return os.path.normpath(str(mount["destination"]))


def _of_the_host(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return b""


def _is_memory(path: str) -> bool:
    from kata.linux.statfs import filesystem

    fd = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return filesystem(fd)[0] == _TMPFS_MAGIC
    finally:
        os.close(fd)
