"""Podman and Docker in a place of their own, each with runc and with our runtime.

The one rule: tests speak the command line of the engine, the same words for both where both have
them; what a test makes is removed after it, and what remains then is a leak.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import time
from contextlib import contextmanager

from support import oci_image
from support.host import need_tool
from support.place import PATH, Place
from support.source import CHECKOUT
from support.terminal import Terminal
from support.vm import SHARED_FS, Result

OUR_RUNTIME = f"{CHECKOUT}/bin/kata-runtime"
RUNTIMES = os.environ.get("KATA_TEST_RUNTIMES", "runc kata").split()
BROKEN = "kata-broken"  # our runtime with a configuration that cannot be read
CONFIGURATION = "/etc/kata-containers/configuration.toml"
IMAGE = "localhost/busybox"
ODD = "localhost/odd"  # USER, WORKDIR, VOLUME, STOPSIGNAL, ENTRYPOINT, CMD, ENV, LABEL
ODD_CONFIG = {
    "User": "ann", "WorkingDir": "/home/ann", "Volumes": {"/kept": {}}, "StopSignal": "SIGINT",
    "Entrypoint": ["sh", "-c"], "Cmd": ["id -un; pwd"], "Env": ["PATH=/bin:/usr/bin", "ODD=yes"],
    "Labels": {"made": "here"},
}  # fmt: skip
PLAIN_CONFIG = {"Cmd": ["sh"], "Env": ["PATH=/bin:/usr/bin"]}
TIMEOUT = 90


class Engine:
    """A container engine's command line with a runtime chosen."""

    kind = ""
    making = ("run", "create")

    def __init__(self, place: Place, runtime: str) -> None:
        self.place = place
        self.runtime = runtime
        self.said: list[str] = []

    def with_runtime(self, runtime: str) -> Engine:
        """The same engine with another runtime."""
        return type(self)(self.place, runtime)

    def command(self, *arguments: str) -> list[str]:
        """The engine's command line, seen from inside its place."""
        raise NotImplementedError

    def clear(self) -> None:
        """Remove whatever tests have made, images apart."""
        raise NotImplementedError

    def argv(self, *arguments: str) -> list[str]:
        """The whole command line."""
        return self.place.argv(*self.command(*arguments))

    def __call__(
        self, *arguments: str, input: bytes | None = None, timeout: float = TIMEOUT
    ) -> Result:
        """Run a command to its end; without ``input`` standard input is empty."""
        process = self.start(
            *arguments, stdin=subprocess.DEVNULL if input is None else subprocess.PIPE
        )
        try:
            out, err = process.communicate(input, timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            self.clear()  # else what still runs holds the pipes
            out, err = process.communicate()
            self._note(arguments, process.returncode, out, err)
            raise AssertionError(f"{arguments} took longer than {timeout} s: {err!r}") from None
        self._note(arguments, process.returncode, out, err)
        return Result(process.returncode, out, err)

    def ok(self, *arguments: str, input: bytes | None = None, timeout: float = TIMEOUT) -> str:
        """Run a command that must succeed; its output."""
        result = self(*arguments, input=input, timeout=timeout)
        assert result.code == 0, f"{arguments} ended with {result.code}: {result.err}"
        return result.out

    def start(self, *arguments: str, **options) -> subprocess.Popen[bytes]:
        """Start a command; standard streams are pipes unless said otherwise."""
        streams = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        return subprocess.Popen(self.argv(*arguments), env=self.place.env, **(streams | options))

    @contextmanager
    def terminal(self, *arguments: str, **size: int):
        """Run a command under a terminal."""
        terminal = Terminal(self.argv(*arguments), self.place.env, **size)
        try:
            yield terminal
        finally:
            terminal.close()
            self._note(arguments, terminal.code, terminal.seen, b"")

    def up(self, *arguments: str, name: str = "box") -> str:
        """Start a container in the background; gives its name."""
        self.ok("run", "-d", "--name", name, *arguments)
        return name

    def sh(self, name: str, script: str) -> str:
        """Run a shell's words in a container; their output."""
        return self.ok("exec", name, "sh", "-c", script)

    def inspect(self, name: str):
        """All that is known of a container."""
        [item] = json.loads(self.ok("container", "inspect", name))
        return item

    def state(self, name: str):
        """The state of a container, as ``inspect`` has it."""
        return self.inspect(name)["State"]

    def until(self, what, *, timeout: float = 30):
        """Wait until a function gives something true; gives that."""
        deadline = time.monotonic() + timeout
        while not (found := what()):
            assert time.monotonic() < deadline, "it did not come to be:\n" + "".join(self.said[-3:])
            time.sleep(0.05)
        return found

    def until_status(self, name: str, status: str, **options: float):
        """Wait until a container is in a state; gives the whole state."""
        return self.until(
            lambda: (s := self.state(name))["Status"].lower() == status and s, **options
        )

    def until_logged(self, name: str, text: str) -> str:
        """Wait until a container has written something; gives all it wrote."""

        def logged() -> str:
            result = self("logs", name)
            both = f"{result.out}\n{result.err}"
            return both if text in both else ""

        return self.until(logged)

    def end(self, name: str = "box") -> None:
        """Remove a container, running or not."""
        self.ok("rm", "-f", name)

    def _note(self, arguments, code, out: bytes, err: bytes) -> None:
        self.said.append(
            f"$ {self.kind} {' '.join(arguments)}  # {self.runtime}\n"
            f"{out[-2000:].decode(errors='replace')}\n{err[-2000:].decode(errors='replace')}\n"
            f"-> {code}\n"
        )


class Podman(Engine):
    """Podman, without a service."""

    kind = "podman"

    def command(self, *arguments: str) -> list[str]:
        """Podman takes its runtime before the verb."""
        return ["/usr/bin/podman", "--runtime", self.runtime, *arguments]

    def clear(self) -> None:
        """Remove pods, containers, volumes and networks."""
        self("rm", "-fa", "-t0")
        used = "".join(self.said)
        for word, verbs in (
            ("pod", ("pod", "rm", "-fa", "-t0")),
            ("kube", ("pod", "rm", "-fa", "-t0")),
            ("network", ("network", "prune", "-f")),
        ):
            if f"podman {word} " in used:
                self(*verbs)
        if "volume" in used or " -v " in used or ODD in used:
            self("volume", "prune", "-f")

    def end(self, name: str = "box") -> None:
        """Podman waits ten seconds unless told otherwise."""
        self.ok("rm", "-f", "-t0", name)


class Docker(Engine):
    """Docker, with the daemon of these tests."""

    kind = "docker"

    def command(self, *arguments: str) -> list[str]:
        """Docker takes its runtime after the verb."""
        verb, *rest = arguments
        runtime = ["--runtime", self.runtime] if verb in self.making else []
        return ["/usr/bin/docker", verb, *runtime, *rest]

    def clear(self) -> None:
        """Remove containers, volumes and networks."""
        ids = self.ok("ps", "-aq").split()
        if ids:
            self("rm", "-fv", *ids)
        used = "".join(self.said)
        if "volume" in used or " -v " in used:
            self("volume", "prune", "-f")
        if "network create" in used or "compose" in used:
            self("network", "prune", "-f")


def configure(place: Place, data: str, **daemon) -> None:
    """Write what the guides tell: the engines' configuration and our runtime's.

    ``daemon`` are more settings of dockerd, by their names with underscores.
    """
    place.write(CONFIGURATION, f'[runtime]\ndata_root = "{data}"\n{SHARED_FS}')
    broken = place.write("/etc/kata-containers/broken.toml", "[runtime\n")
    wrapper = f'#!/bin/sh\nKATA_CONFIG={broken} exec {OUR_RUNTIME} "$@"\n'
    wrapper = place.write("/run/broken/kata-runtime", wrapper, 0o755)
    podman = [
        "[containers]", f"default_ulimits = {json.dumps(_limits())}", 'log_driver = "k8s-file"',
        "[engine]", 'cgroup_manager = "cgroupfs"', 'events_logger = "file"',
        "[engine.runtimes]", 'runc = ["/usr/sbin/runc"]', f'kata = ["{OUR_RUNTIME}"]',
        f'{BROKEN} = ["{wrapper}"]',
    ]  # fmt: skip
    place.write("/etc/containers/containers.conf", "\n".join(podman) + "\n")
    place.write("/etc/containers/policy.json", '{"default": [{"type": "insecureAcceptAnything"}]}')
    runtimes = {"kata": {"path": OUR_RUNTIME}, BROKEN: {"path": wrapper}}
    docker = {
        "runtimes": runtimes, "exec-opts": ["native.cgroupdriver=cgroupfs"],
        "cgroup-parent": f"/kata-test-docker-{os.getpid()}", "bip": "172.31.200.1/24",
    }  # fmt: skip
    docker |= {name.replace("_", "-"): value for name, value in daemon.items()}
    place.write("/etc/docker/daemon.json", json.dumps(docker))


def _limits() -> list[str]:
    """Limits that runc can set here: Podman's own defaults need the right to raise them."""
    wanted = {"nofile": resource.RLIMIT_NOFILE, "nproc": resource.RLIMIT_NPROC}
    hard = {name: resource.getrlimit(kind)[1] for name, kind in wanted.items()}
    return [f"{n}={v}:{v}" for n, v in ((n, min(v, 32768)) for n, v in hard.items())]


def archives(directory: str, rootfs: str) -> list[str]:
    """The images of the tests as files that an engine can load."""
    base = oci_image.layer_of(rootfs)
    made = []
    for name, config in ((IMAGE, PLAIN_CONFIG), (ODD, ODD_CONFIG)):
        path = oci_image.write(f"{directory}/{os.path.basename(name)}", [base], config)
        archive = f"docker-archive:{directory}/{os.path.basename(name)}.tar:{name}:latest"
        subprocess.run(
            [need_tool("skopeo"), "copy", "-q", "--insecure-policy", f"oci:{path}:latest", archive],
            check=True, env={"PATH": PATH, "HOME": "/root"},
        )  # fmt: skip
        made.append(f"{directory}/{os.path.basename(name)}.tar")
    return made


@contextmanager
def docker_daemon(place: Place, log: str):
    """dockerd, and the containerd it starts, until the end."""
    with open(log, "ab") as file:
        daemon = subprocess.Popen(
            place.argv("/usr/sbin/dockerd"), env=place.env, stdin=subprocess.DEVNULL,
            stdout=file, stderr=file,
        )  # fmt: skip
    try:
        docker = Docker(place, "runc")
        docker.until(lambda: daemon.poll() is None and docker("version").code == 0)
        yield docker
    finally:
        daemon.terminate()
        daemon.wait(30)
