"""The real agent as a child process, and a client for it: fixtures ``agent`` and ``guest``."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import tempfile
import threading
import time

from kata.guest import staged
from kata.oci.defaults import DEFAULT_CAPABILITIES
from kata.runtime.rpc import Client
from kata.wire import agent_api as api
from support import busybox
from support.host import lacks
from support.source import CHECKOUT

SCRIPT = f"{CHECKOUT}/tests/support/agent_host.py"
CGROUPS = ("/sys/fs/cgroup/unified", "/sys/fs/cgroup")
NAMESPACES = ("mount", "network", "uts", "pid", "ipc", "cgroup")


def cgroup_root() -> str:
    """A new control group (version 2) for an agent to keep its own in."""
    for path in CGROUPS:
        if os.path.exists(f"{path}/cgroup.procs") and os.path.exists(f"{path}/cgroup.controllers"):
            return tempfile.mkdtemp(prefix="kt-", dir=path)
    return lacks("a mount of cgroup v2")


def remove_group(path: str) -> None:
    """Kill what is in a control group and remove it and those below."""
    deadline = time.monotonic() + 5
    while os.path.exists(path):
        try:
            with open(f"{path}/cgroup.kill", "w", encoding="ascii") as file:
                file.write("1")
            for directory, _, _ in os.walk(path, topdown=False):
                os.rmdir(directory)
        except OSError:
            assert time.monotonic() < deadline, f"{path} stays busy"
            time.sleep(0.01)


class AgentProcess:
    """The agent in a process of its own, and the host's end of its connection."""

    def __init__(self, run: str, cgroup: str, *, isolated: bool) -> None:
        self.socket, other = socket.socketpair()
        kind = "isolated" if isolated else "plain"
        argv = ["/usr/bin/python3", "-I", "-S", SCRIPT, f"{CHECKOUT}/src"]
        argv += [str(other.fileno()), run, cgroup, kind]
        self.process = subprocess.Popen(
            argv, pass_fds=[other.fileno()], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        other.close()

    def close(self) -> tuple[str, str]:
        """Hang up and wait for its end; what it wrote to standard output and error."""
        self.socket.close()
        out, err = self.process.communicate(timeout=20)
        return out.decode(), err.decode()


class Guest:
    """The agent with containers: what a test asks of it."""

    def __init__(self, agent: AgentProcess, directory: str) -> None:
        self.client = Client(agent.socket)
        self.agent = agent
        self.directory = directory
        self._made = 0

    def call(self, method: str, request=None, timeout: float = 30):
        """Call a method."""
        return self.client.call(method, request or api.Empty(), timeout)

    def root(self) -> str:
        """A new root file system."""
        self._made += 1
        return busybox.make(f"{self.directory}/root{self._made}")

    def spec(self, *args: str, **changes) -> dict:
        """A specification as Docker's; ``process`` and ``linux`` are merged, the rest replaced."""
        sets = ("bounding", "effective", "permitted")
        spec = {
            "ociVersion": "1.2.0",
            "root": {"path": changes.pop("rootfs", "") or self.root()},
            "hostname": "box",
            "process": {
                "args": list(args),
                "cwd": "/",
                "env": ["PATH=/bin"],
                "user": {"uid": 0, "gid": 0},
                "capabilities": {kind: list(DEFAULT_CAPABILITIES) for kind in sets},
            }
            | changes.pop("process", {}),
            "mounts": [
                {"destination": path, "type": kind, "source": kind, "options": list(options)}
                for path, kind, options in staged.MOUNTS
            ]
            + changes.pop("more_mounts", []),
            "linux": {
                "namespaces": [{"type": kind} for kind in NAMESPACES],
                "maskedPaths": list(staged.MASKED),
                "readonlyPaths": list(staged.READONLY),
            }
            | changes.pop("linux", {}),
        }
        return spec | changes

    def create(self, container_id: str, spec: dict, **more) -> None:
        """Create a container."""
        terminal = spec["process"].get("terminal", False)
        wanted = {"stdin": not terminal, "stdout": True, "stderr": not terminal} | more
        self.call(
            "CreateContainer",
            api.CreateContainerRequest(
                container_id=container_id, spec=json.dumps(spec).encode(), **wanted
            ),
        )

    def start(self, container_id: str) -> None:
        """Start a container."""
        self.call("StartContainer", api.ContainerRequest(container_id=container_id))

    def output(self, container_id: str, exec_id: str = "", stream: int = 1):
        """Open a stream of output."""
        request = api.StreamRequest(container_id=container_id, exec_id=exec_id, stream=stream)
        return self.client.stream("ReadOutput", request)

    def input(self, container_id: str, data: bytes, exec_id: str = "") -> None:
        """Feed standard input, then close it."""
        request = api.StreamRequest(container_id=container_id, exec_id=exec_id, stream=0)
        stream = self.client.stream("WriteInput", request)
        threading.Thread(target=_feed, args=(stream, data), daemon=True).start()

    def wait(self, container_id: str, exec_id: str = ""):
        """Wait for the end of a process."""
        return self.call("Wait", api.ProcessRequest(container_id=container_id, exec_id=exec_id))

    def delete(self, container_id: str, *, force: bool = False) -> None:
        """Delete a container."""
        self.call("Delete", api.DeleteRequest(container_id=container_id, force=force))

    def run(self, *args: str, input: bytes = b"", spec: dict | None = None, **more):
        """Run a container to its end: output, errors, how it ended."""
        changes = {key: more.pop(key) for key in list(more) if key in _SPEC}
        spec = spec or self.spec(*args, **changes)
        self.create("run", spec, **more)
        try:
            terminal = spec["process"].get("terminal", False)
            out = self.output("run")
            err = None if terminal else self.output("run", stream=2)
            self.start("run")
            if not terminal:
                self.input("run", input)
            found = read_all(out), read_all(err) if err else b""
            return (*found, self.wait("run"))
        finally:
            self.delete("run", force=True)

    def exec(self, container_id: str, *args: str, input: bytes = b"", **process):
        """Run one more process: output, how it ended."""
        self._made += 1
        exec_id = f"e{self._made}"
        base = self.spec(*args, rootfs="/")["process"] | process
        terminal = base.get("terminal", False)
        self.call(
            "Exec",
            api.ExecRequest(
                container_id=container_id, exec_id=exec_id, process=json.dumps(base).encode(),
                stdin=not terminal, stdout=True,
            ),
        )  # fmt: skip
        out = self.output(container_id, exec_id)
        if not terminal:
            self.input(container_id, input, exec_id)
        return read_all(out), self.wait(container_id, exec_id)


_SPEC = frozenset(("process", "linux", "root", "mounts", "more_mounts", "hostname", "rootfs"))


def read_all(stream) -> bytes:
    """Everything a stream brings, granting as it goes."""
    parts = []
    while data := stream.read():
        parts.append(data)
        stream.consumed(len(data))
    return b"".join(parts)


def _feed(stream, data: bytes) -> None:
    while data and (room := stream.room()):
        stream.write(data[:room])
        data = data[room:]
    stream.close()
