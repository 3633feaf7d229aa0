"""containerd's side of a shim, played by the test: bundles, the two sockets, the events that come.

The one rule: the shim is started as containerd starts it, and spoken to over its socket alone.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import threading
import time

from kata.errors import KataError, NotFound
from kata.wire import containerd_events, containerd_task
from kata.wire.containerd_events import ForwardRequest
from kata.wire.ttrpc import AnyMessage, Connection, Request, Response
from support import busybox
from support.source import CHECKOUT
from support.vm import SHARED_FS

SHIM = os.environ.get("KATA_TEST_SHIM", f"{CHECKOUT}/bin/containerd-shim-kata-v2")
KILL = int(signal.SIGKILL)
TYPE, SANDBOX = "io.kubernetes.cri.container-type", "io.kubernetes.cri.sandbox-id"
SERVICE = "containerd.task.v2.Task"
_KINDS = {cls.__name__: cls for cls in containerd_events.TOPICS}


class Events:
    """The event service of containerd: notes what it is told; may be absent for a while."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.seen: list[tuple[str, object]] = []
        self._changed = threading.Condition()
        self._listener: socket.socket | None = None
        self._open: list[socket.socket] = []
        self.appear()

    def appear(self) -> None:
        """Listen."""
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(self.path)
        self._listener.listen()
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def vanish(self) -> None:
        """Be gone, as while containerd restarts."""
        os.unlink(self.path)
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for sock in self._open:
            with contextlib.suppress(OSError):  # the shim hung up first
                sock.shutdown(socket.SHUT_RDWR)
        self._open.clear()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            self._open.append(sock)
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        connection = Connection()
        with sock:
            while data := _received(sock):
                for event in connection.receive(data):
                    assert isinstance(event, Request)
                    assert (event.service, event.method) == (
                        "containerd.services.events.ttrpc.v1.Events", "Forward",
                    )  # fmt: skip
                    self._note(ForwardRequest.decode(event.payload).envelope)
                    with contextlib.suppress(OSError):  # we vanished meanwhile
                        sock.sendall(Connection.respond(event.stream, b""))

    def _note(self, envelope) -> None:
        name = envelope.event.type_url.removeprefix("containerd.events.")
        event = _KINDS[name].decode(envelope.event.value)
        assert containerd_events.TOPICS[_KINDS[name]] == envelope.topic
        with self._changed:
            self.seen.append((envelope.topic, event))
            self._changed.notify_all()

    def topics(self, container_id: str) -> list[str]:
        """The topics of a container's events so far, in their order."""
        return [topic for topic, event in self.seen if event.container_id == container_id]

    def wait_for(self, topic: str, container_id: str, timeout: float = 60):
        """The first event of a topic about a container."""
        with self._changed:
            assert self._changed.wait_for(
                lambda: topic in self.topics(container_id), timeout
            ), f"no {topic} of {container_id}: {self.seen}"
        return next(e for t, e in self.seen if t == topic and e.container_id == container_id)


def _received(sock: socket.socket) -> bytes:
    try:
        return sock.recv(65536)
    except OSError:
        return b""


class Shim:
    """The shim of one sandbox: its address, and calls over it."""

    def __init__(self, address: str) -> None:
        self.address = address

    def call(self, method: str, request, answer=None, *, service: str = SERVICE):
        """Call a method over a connection of its own. Raises the error that came back."""
        path = self.address.removeprefix("unix://")
        connection = Connection()
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(path)
            number, data = connection.request(service, method, request.encode())
            sock.sendall(data)
            while data := sock.recv(65536):
                for event in connection.receive(data):
                    assert isinstance(event, Response)
                    assert event.stream == number
                    if event.error is not None:
                        raise event.error
                    kind = answer or containerd_task.METHODS[method][1]
                    return kind.decode(event.payload)
        raise KataError("the shim hung up")

    def of(self, method: str, container_id: str, exec_id: str = "", **fields):
        """Call a method about a process."""
        kind = containerd_task.METHODS[method][0]
        known = {field.name for field in kind.FIELDS}
        if exec_id or "exec_id" in known:
            fields["exec_id"] = exec_id
        return self.call(method, kind(id=container_id, **fields))


class Containerd:
    """A containerd of one test, in a directory of its own."""

    program = SHIM

    def __init__(self, directory: str, data: str) -> None:
        self.directory = directory
        self.address = f"{directory}/containerd.sock"
        self.events = Events(f"{self.address}.ttrpc")
        self.rootfs = busybox.make(f"{directory}/tree")
        self.state = f"{directory}/run"
        settings = f"{directory}/kata.toml"
        with open(settings, "w", encoding="utf-8") as file:
            file.write(f'[runtime]\ndata_root = "{data}"\nstate_root = "{self.state}"\n{SHARED_FS}')
        self.env = {**os.environ, "KATA_CONFIG": settings}
        self.made: list[str] = []

    def bundle(self, name: str, *args: str, terminal: bool = False, **changes) -> str:
        """A bundle, with an empty directory for its root file system."""
        path = f"{self.directory}/bundles/{name}"
        os.makedirs(f"{path}/rootfs")
        argv = [f"{CHECKOUT}/bin/kata-runtime", "spec", "--bundle", path]
        subprocess.run(argv, check=True, env=self.env)
        with open(f"{path}/config.json", encoding="utf-8") as file:
            spec = json.load(file)
        spec["process"].update(terminal=terminal, args=list(args))
        spec["root"]["readonly"] = False
        spec["linux"]["cgroupsPath"] = f"/kata-test-shim/{os.getpid()}-{name}"
        spec.update(changes)
        with open(f"{path}/config.json", "w", encoding="utf-8") as file:
            json.dump(spec, file)
        self.made.append(name)
        return path

    def run(self, name: str, action: str, *flags: str, stdin: bytes = b""):
        """Run the shim's command as containerd does; it must succeed. Its standard output."""
        bundle = f"{self.directory}/bundles/{name}"
        argv = [SHIM, "-namespace", "test", "-address", self.address, "-id", name, *flags, action]
        done = subprocess.run(
            argv, cwd=bundle, env=self.env, input=stdin, capture_output=True, timeout=280,
            check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout

    def start(self, name: str) -> Shim:
        """Start, or find, the shim for a bundle."""
        return Shim(self.run(name, "start").decode())

    def create(self, shim: Shim, name: str, *, rootfs=None, **streams):
        """Create the task of a bundle, its root over the tree of all if no other is given."""
        bundle = f"{self.directory}/bundles/{name}"
        for layer in ("upper", "work"):
            os.makedirs(f"{bundle}/{layer}", exist_ok=True)
        options = [f"lowerdir={self.rootfs}", f"upperdir={bundle}/upper", f"workdir={bundle}/work"]
        mount = containerd_task.Mount(type="overlay", source="overlay", options=options)
        request = containerd_task.CreateRequest(
            id=name, bundle=bundle, rootfs=[rootfs or mount], **streams
        )
        return shim.call("Create", request)

    def fifo(self, name: str) -> tuple[str, int]:
        """A named pipe with a reader, as containerd makes it before it calls."""
        path = f"{self.directory}/{name}"
        os.mkfifo(path)
        return path, os.open(path, os.O_RDONLY | os.O_NONBLOCK)

    def delete(self, name: str):
        """The action ``delete``."""
        out = self.run(name, "delete", "-bundle", f"{self.directory}/bundles/{name}")
        return containerd_task.DeleteResponse.decode(out)

    def close(self) -> None:
        """Remove whatever is left, members of pods first."""
        for name in reversed(self.made):
            self.delete(name)
        self.events.vanish()


def until_end(fd: int, timeout: float = 60) -> bytes:
    """All that comes out of a pipe (non-blocking) until nobody writes any more."""
    found = b""
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        try:
            data = os.read(fd, 65536)
        except BlockingIOError:
            time.sleep(0.005)
            continue
        if not data:
            if found:
                break
            time.sleep(0.005)
            continue
        found += data
    os.close(fd)
    return found


def process_spec(*args: str, **changes) -> AnyMessage:
    """A process for Exec, as containerd packs it."""
    spec = {
        "args": list(args), "cwd": "/", "env": ["PATH=/bin"], "user": {"uid": 0, "gid": 0},
        **changes,
    }  # fmt: skip
    url = "types.containerd.io/opencontainers/runtime-spec/1/Process"
    return AnyMessage(type_url=url, value=json.dumps(spec).encode())


def simple(containerd, name, *args, **streams):
    """A container that was created: its shim."""
    containerd.bundle(name, *args)
    shim = containerd.start(name)
    containerd.create(shim, name, **streams)
    return shim


def finish(shim, name):
    """Kill, wait, delete, shut down."""
    try:
        shim.of("Kill", name, signal=KILL)
    except NotFound:
        pass
    shim.of("Wait", name)
    answer = shim.of("Delete", name)
    shim.of("Shutdown", name)
    return answer


def pod(containerd):
    """A pod's sandbox, running: its shim."""
    marks = {TYPE: "sandbox", SANDBOX: "pod"}
    containerd.bundle("pod", "sleep", "1000", annotations=marks, hostname="podname")
    shim = containerd.start("pod")
    containerd.create(shim, "pod")
    shim.of("Start", "pod")
    return shim


def member(containerd, shim, name, *args, mounts=None, pids="", **streams):
    """A container of the pod, created; ``mounts`` beside the standard ones.

    ``pids``: the path of a pid namespace to join.
    """
    joined = {"path": pids} if pids else {}
    namespaces = [{"type": "mount"}, {"type": "pid", **joined}, {"type": "cgroup"}]
    pid = shim.of("State", "pod").pid
    for kind, file in (("network", "net"), ("ipc", "ipc"), ("uts", "uts")):
        namespaces.append({"type": kind, "path": f"/proc/{pid}/ns/{file}"})
    marks = {TYPE: "container", SANDBOX: "pod"}
    linux = {"namespaces": namespaces, "cgroupsPath": f"/kata-test-shim/{os.getpid()}-{name}"}
    changes = {} if mounts is None else {"mounts": mounts}
    containerd.bundle(name, *args, annotations=marks, linux=linux, hostname="", **changes)
    assert containerd.start(name).address == shim.address
    containerd.create(shim, name, **streams)
