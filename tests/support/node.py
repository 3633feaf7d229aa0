"""A containerd in a place of its own, with its CRI plugin and CNI, every runtime, two snapshotters.

The one rule: all is where containerd's manual has it (configuration, sockets, stores), inside a
place; Docker's containerd is another one, in another place.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import time

from support import busybox, leaks, oci_image
from support.cri import GROUP, Client, Error
from support.engines import CONFIGURATION, IMAGE, PLAIN_CONFIG, Engine
from support.host import need_tool
from support.place import PATH, Place
from support.source import CHECKOUT
from support.vm import SHARED_FS

RUNTIMES = {"runc": "io.containerd.runc.v2", "kata": "io.containerd.kata.v2"}
SHIM = f"{CHECKOUT}/bin/containerd-shim-kata-v2"
DAEMON = os.environ.get("KATA_TEST_CONTAINERD", "/usr/bin/containerd")
HERE = os.path.dirname(os.path.abspath(__file__))
PAUSE = "localhost/pause"
NAMESPACE = f"kata-test-ctr-{os.getpid()}"
GROUPS = (NAMESPACE, GROUP)
SUBNET = "10.91.0.0/16"
SETTINGS = f"""\
version = 2
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{PAUSE}:latest"
restrict_oom_score_adj = true
stats_collect_period = 1
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/usr/lib/cni"
conf_dir = "/etc/cni/net.d"
[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "overlayfs"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "{RUNTIMES["runc"]}"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.kata]
runtime_type = "{RUNTIMES["kata"]}"
privileged_without_host_devices = true
"""
if SANDBOXER := os.environ.get("KATA_TEST_SANDBOXER"):  # "shim": pods by the Sandbox API
    SETTINGS += f'sandboxer = "{SANDBOXER}"\n'
NETWORK = {
    "cniVersion": "0.4.0", "name": "kata-test",
    "plugins": [
        {
            "type": "bridge", "bridge": "cni-test", "isGateway": True, "ipMasq": True,
            "hairpinMode": True,
            "ipam": {
                "type": "host-local", "ranges": [[{"subnet": SUBNET}]],
                "routes": [{"dst": "0.0.0.0/0"}],
            },
        },
        {"type": "portmap", "capabilities": {"portMappings": True}, "snat": True},
        {"type": "firewall"},
        {"type": "bandwidth", "capabilities": {"bandwidth": True}},
    ],
}  # fmt: skip
PAUSE_SOURCE = """\
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>
static void end(int number) { _exit(0); }
static void reap(int number) { while (waitpid(-1, 0, WNOHANG) > 0); }
int main(void) {
    signal(SIGTERM, end);
    signal(SIGINT, end);
    signal(SIGCHLD, reap);
    for (;;) pause();
}
"""
KEPT = (  # what stands in a place that a container may have brought
    "/run/netns/*", "/run/kata/*/*", "/run/containerd/s/*", "/run/containerd/runc/*/*",
    "/run/containerd/fifo/*", "/run/containerd/io.containerd.runtime.v2.task/*/*",
    "/run/containerd/io.containerd.grpc.v1.cri/*/*", "/var/lib/cni/networks/*/10.*",
    "/var/lib/cni/results/*", "/var/lib/containerd/io.containerd.snapshotter.v1.*/snapshots/*",
    "/var/lib/containerd/io.containerd.runtime.v2.task/*/*",
    "/var/lib/containerd/io.containerd.grpc.v1.cri/*/*",
)  # fmt: skip


class Containerd:
    """The daemon in a place; it can be killed and started again."""

    def __init__(self, place: Place, data: str) -> None:
        self.place = place
        self.log = f"{place.directory}/containerd.log"
        self.cri = Client(f"/proc/{place.pid}/root/run/containerd/containerd.sock")
        self.env = place.env | {"PATH": f"{place.env['PATH']}:{CHECKOUT}/bin"}
        place.write("/etc/containerd/config.toml", SETTINGS)
        place.write("/etc/cni/net.d/10-kata-test.conflist", json.dumps(NETWORK))
        place.write(CONFIGURATION, f'[runtime]\ndata_root = "{data}"\n{SHARED_FS}')
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it answers."""
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                self.place.argv(DAEMON), env=self.env, stdin=subprocess.DEVNULL,
                stdout=log, stderr=log,
            )  # fmt: skip
        leaks.restarted.add(self.process.pid)
        deadline = time.monotonic() + 30
        while not self._answers():
            assert self.process.poll() is None, f"containerd ended; see {self.log}"
            assert time.monotonic() < deadline, f"containerd does not answer; see {self.log}"
            time.sleep(0.05)

    def _answers(self) -> bool:
        try:
            conditions = self.cri("Status", seconds=2).status.conditions
        except Error:
            return False
        return all(c.status for c in conditions if c.type.endswith("Ready"))

    def end(self, *, kill: bool = False) -> None:
        """End it, at once or in order; what it started stays."""
        if self.process:
            (self.process.kill if kill else self.process.terminate)()
            self.process.wait(30)
            leaks.restarted.discard(self.process.pid)
            self.process = None

    def restart(self, *, kill: bool = False) -> None:
        """End it and start it anew."""
        self.end(kill=kill)
        self.start()

    def load(self, archive: str) -> None:
        """Load an image for CRI and for ``ctr``."""
        for namespace in ("k8s.io", NAMESPACE):
            argv = ["/usr/bin/ctr", "-n", namespace, "image", "import", archive]
            self.place.run(*argv)
        self.place.run(*argv, "--snapshotter", "native")

    def collect(self) -> None:
        """Have it collect its garbage now: by itself it rests 50 times as long as that takes.

        It looks at the directories of a snapshotter only if a snapshot went since the last time:
        one goes here, so that a directory that could not be removed then is removed now.
        """
        for snapshotter in ("overlayfs", "native"):
            self._ctr("snapshots", "--snapshotter", snapshotter, "prepare", "collect")
            self._ctr("snapshots", "--snapshotter", snapshotter, "remove", "collect")
        self._ctr("leases", "create", "--id", "collect")
        self._ctr("leases", "delete", "--sync", "collect")

    def _ctr(self, *arguments: str) -> None:
        self.place.run("/usr/bin/ctr", "-n", NAMESPACE, *arguments, check=False)

    def held(self) -> set[str]:
        """What stands in the place that a container may have brought."""
        script = f"ls -d {' '.join(KEPT)} 2>/dev/null | grep -v /run/kata/cache/"
        found = self.place.run("sh", "-c", script, check=False).stdout.splitlines()
        return self.place.held() | {f"there {path}" for path in found}


class Ctr(Engine):
    """containerd's own command, with a runtime chosen."""

    kind = "ctr"
    snapshotter = "overlayfs"

    def command(self, *arguments: str) -> list[str]:
        """ctr takes runtime and snapshotter after the verb."""
        verb, *rest = arguments
        chosen = ["--runtime", RUNTIMES[self.runtime], "--snapshotter", self.snapshotter]
        more = chosen if verb == "run" else []
        return ["/usr/bin/ctr", "-n", NAMESPACE, verb, *more, *rest]

    def up(self, *arguments: str, name: str = "box", flags: tuple[str, ...] = ()) -> str:
        """Start a container in the background; gives its name."""
        command = arguments or ("sleep", "3600")
        self.ok("run", "-d", *flags, f"{IMAGE}:latest", name, *command)
        return name

    def run(self, *arguments: str, name: str = "box", flags: tuple[str, ...] = ()):
        """Run a container to its end; it is removed."""
        return self("run", "--rm", *flags, f"{IMAGE}:latest", name, *arguments)

    def exec(self, name: str, *arguments: str):
        """Run a command in a container to its end."""
        return self("task", "exec", "--exec-id", f"exec-{len(self.said)}", name, *arguments)

    def sh(self, name: str, script: str) -> str:
        """Run a shell's words in a container; their output."""
        done = self.exec(name, "sh", "-c", script)
        assert done.code == 0, f"{script!r} ended with {done.code}: {done.err}"
        return done.out

    def tasks(self) -> dict[str, str]:
        """The tasks and their states."""
        rows = [line.split() for line in self.ok("task", "ls").splitlines()[1:]]
        return {row[0]: row[2] for row in rows}

    def reap(self, name: str) -> int:
        """Delete a task that has ended; its exit code, which ctr only warns of."""
        done = self("task", "rm", name)
        assert done.code == 0, done.err
        found = re.search(r"non-zero exit code (\d+)", done.err)
        return int(found[1]) if found else 0

    def end(self, name: str = "box") -> None:
        """Kill and remove a container."""
        self("task", "kill", "-s", "SIGKILL", name)
        self("task", "rm", "-f", name)
        self("container", "rm", name)

    def clear(self) -> None:
        """Remove whatever tests have made, images apart."""
        for name in self.ok("container", "ls", "-q").split():
            self.end(name)
        left = self.place.run(
            "/usr/bin/ctr", "-n", NAMESPACE, "task", "ls", "-q", check=False
        ).stdout.split()
        for name in left:
            self("task", "rm", "-f", name)


def archives(directory: str) -> list[str]:
    """The images of these tests as files that ``ctr`` can import."""
    root = busybox.make(f"{directory}/rootfs")
    _compile(f"{HERE}/probe.c", f"{root}/bin/probe")
    base = oci_image.layer_of(root)
    with open(f"{directory}/pause.c", "w", encoding="utf-8") as file:
        file.write(PAUSE_SOURCE)
    os.makedirs(f"{directory}/pause-rootfs")
    _compile(f"{directory}/pause.c", f"{directory}/pause-rootfs/pause")
    pause = oci_image.layer_of(f"{directory}/pause-rootfs")
    return [
        archive(directory, IMAGE, base, PLAIN_CONFIG),
        archive(directory, PAUSE, pause, {"Entrypoint": ["/pause"]}),
    ]


def _compile(source: str, target: str) -> None:
    argv = [need_tool("gcc"), "-static", "-Os", "-Wall", "-Werror", "-o", target, source]
    subprocess.run(argv, check=True)


def archive(directory: str, name: str, layer: bytes, config: dict) -> str:
    """An image of one layer as a file that ``ctr`` can import."""
    short = os.path.basename(name)
    path = oci_image.write(f"{directory}/{short}", [layer], config)
    subprocess.run(
        [need_tool("skopeo"), "copy", "-q", "--insecure-policy", f"oci:{path}:latest",
         f"docker-archive:{directory}/{short}.tar:{name}:latest"],
        check=True, env={"PATH": PATH, "HOME": "/root"},
    )  # fmt: skip
    return f"{directory}/{short}.tar"


def processes(word: str) -> list[int]:
    """Processes below this one, of which a word is in the command line: "qemu-system"."""
    mine = leaks.descendants(os.getpid())
    return [pid for pid in mine if word in leaks.describe(pid).partition(" ")[2]]
