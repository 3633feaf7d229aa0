"""A place for a container engine: network, mounts, /run, /etc and stores of its own.

The one rule: the engine sees an ordinary machine, with configuration where its manual has it, and
the real machine sees nothing of the engine but processes and control groups.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import threading
import time

from kata.linux.syscalls import setns
from support import leaks
from support.host import need_tool

STORES = ("containers", "docker", "containerd", "cni")
PATH = "/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin"  # not /usr/local/bin: Debian's programs
CGROUPS = "/sys/fs/cgroup"
ENGINES = ("libpod_parent", f"kata-test-docker-{os.getpid()}")  # control groups of both engines

ENTER = r"""
set -e
cd "$1"
mount --make-rprivate /
mkdir cgroup && mount --rbind /sys/fs/cgroup cgroup
mount -t sysfs sysfs /sys && mount --rbind cgroup /sys/fs/cgroup && umount -l cgroup
mount -t tmpfs tmpfs /run
mkdir -m 1777 /run/lock
mount -t tmpfs tmpfs /dev/shm
mkdir own && mount -t tmpfs tmpfs own
mkdir own/etc own/work
mount -t overlay overlay -o lowerdir=/etc,upperdir=own/etc,workdir=own/work /etc
for store in $2; do
    mkdir -p own/$store /var/lib/$store
    mount --bind own/$store /var/lib/$store
done
ip link set lo up
echo ready
exec sleep infinity
"""


class Place:
    """Namespaces held by a sleeping process; ``close`` ends it, and with it all that is in them."""

    def __init__(self, directory: str, groups: tuple[str, ...] = ENGINES) -> None:
        self.directory = directory
        self.pooled = False  # whether a pool of ready sandboxes comes and goes in here
        self._groups = groups
        unshare = [need_tool("unshare"), "--net", "--mount", "sh", "-c", ENTER]
        self._holder = subprocess.Popen(
            [*unshare, "sh", directory, " ".join(STORES)],
            stdout=subprocess.PIPE, text=True, env={"PATH": PATH},
        )  # fmt: skip
        ready = self._holder.stdout.readline()
        self._holder.stdout.close()
        assert ready == "ready\n", "no namespaces of our own"
        self.pid = self._holder.pid
        self.env = {"PATH": f"{directory}/bin:{PATH}", "HOME": "/root", "TERM": "xterm"}
        self._packet_filter()

    def argv(self, *argv: str) -> list[str]:
        """The command line that runs a program in here."""
        return [need_tool("nsenter"), f"--target={self.pid}", "--mount", "--net", "--", *argv]

    def run(self, *argv: str, **options) -> subprocess.CompletedProcess[str]:
        """Run a program in here to its end."""
        options = {"capture_output": True, "text": True, "timeout": 60, "check": True} | options
        return subprocess.run(self.argv(*argv), env=self.env, **options)

    def write(self, path: str, text: str, mode: int = 0o644) -> str:
        """Write a file in here; the directories above it are made. Gives the path."""
        script = f'mkdir -p "$(dirname {path})" && cat >{path} && chmod {mode:o} {path}'
        self.run("sh", "-c", script, input=text)
        return path

    def _packet_filter(self) -> None:
        """Make ``iptables`` the variant that this kernel has."""
        os.mkdir(f"{self.directory}/bin")
        rule = ("-t", "nat", "-A", "POSTROUTING", "-j", "MASQUERADE")
        for variant in ("nft", "legacy"):
            for name in ("iptables", "ip6tables", "iptables-save", "iptables-restore"):
                program, _, rest = name.partition("-")
                target = f"/usr/sbin/{program}-{variant}{'-' * bool(rest)}{rest}"
                path = f"{self.directory}/bin/{name}"
                if os.path.lexists(path):
                    os.unlink(path)
                os.symlink(target, path)
            if self.run("iptables", *rule, check=False).returncode == 0:
                self.run("iptables", "-t", "nat", "-F", "POSTROUTING")
                return

    def connect(self, port: int, *, kind=socket.SOCK_STREAM, host="127.0.0.1") -> socket.socket:
        """A socket in here, connected to a port; it stays in here whoever uses it."""
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        made: list[socket.socket] = []

        def make() -> None:
            fd = os.open(f"/proc/{self.pid}/ns/net", os.O_RDONLY)
            try:
                setns(fd, 0)
                made.append(socket.socket(family, kind))
            finally:
                os.close(fd)

        thread = threading.Thread(target=make)
        thread.start()
        thread.join()
        [client] = made
        client.settimeout(2)
        try:
            client.connect((host, port))
        except OSError:
            client.close()
            raise
        return client

    def reach(self, port: int, data: bytes, *, kind=socket.SOCK_STREAM, host="127.0.0.1") -> bytes:
        """Send something to a port in here and give what comes back; patient with slow servers."""
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            try:
                with self.connect(port, kind=kind, host=host) as client:
                    client.send(data)
                    if answer := _all(client, kind):
                        return answer
            except OSError:
                time.sleep(0.1)
        return b""

    def held(self) -> set[str]:
        """What stands in here that a container may have brought: links, mounts, rules, groups."""
        mounts = leaks._read(f"/proc/{self.pid}/mountinfo").splitlines()
        held = {f"mount {line.split(' ')[4]}" for line in mounts}
        kept = "grep -v -e /run/kata/cache/ -e /run/kata/rehearsal/"
        kept += " -e /run/kata/uids/" * self.pooled
        script = f"ip -o link; ls -d /run/netns/* /run/runc/* /run/kata/*/* | {kept}"
        for line in self.run("sh", "-c", script, check=False).stdout.splitlines():
            word = line.split(": ")[1].partition("@")[0] if ": " in line else line
            held.add(f"there {word}")
        for line in self.run("iptables-save", check=False).stdout.splitlines():
            if line.startswith("-A"):
                held.add(f"rule {line}")
        return held | {f"group {path}" for path in self.groups() if not _is_kept(path)}

    def groups(self) -> list[str]:
        """The control groups below those of the engines in here."""
        return [
            os.path.join(directory, each)
            for name in self._groups
            for root in group_roots(name)
            for directory, names, _ in os.walk(root)
            for each in names
        ]

    def close(self) -> None:
        """Let the namespaces go; what engines leave of control groups is removed."""
        self._holder.kill()
        self._holder.wait()
        for path in sorted(self.groups(), key=len, reverse=True):
            remove_group(path)
        for name in self._groups:
            for path in group_roots(name):
                remove_group(path)
        shutil.rmtree(self.directory)


def group_roots(name: str) -> list[str]:
    """The directories of a control group, one for each hierarchy there is."""
    roots = [CGROUPS, *(f"{CGROUPS}/{each}" for each in os.listdir(CGROUPS))]
    return [path for root in roots if os.path.isdir(path := f"{root}/{name}")]


def _is_kept(group: str) -> bool:
    """Podman keeps conmon's group, and on version 1 forgets pods' in hierarchies without limits."""
    return bool(re.search(r"/conmon$|/(systemd|unified)/libpod_parent/[0-9a-f]{64}$", group))


def remove_group(path: str) -> None:
    """Remove a control group, if it is empty."""
    try:
        os.rmdir(path)
    except OSError:
        pass


def _all(client: socket.socket, kind: int) -> bytes:
    """What comes back: one datagram, or a stream to its end."""
    if kind == socket.SOCK_DGRAM:
        return client.recv(65536)
    found = b""
    while piece := client.recv(65536):
        found += piece
    return found
