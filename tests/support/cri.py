"""Kubernetes' side of the container runtime interface: calls, pods, container logs.

The one rule: every call has a connection of its own, so a daemon that dies or comes back is no
matter of the client's, and no descriptor outlives a test.
"""

from __future__ import annotations

import itertools
import os
import tempfile
import time
from dataclasses import dataclass
from functools import cache

os.environ.setdefault("GRPC_VERBOSITY", "NONE")
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory
from grpc_tools import protoc

NAMES = itertools.count(1)
HERE = os.path.dirname(os.path.abspath(__file__))
TIMEOUT = 60
GROUP = f"kata-test-cri-{os.getpid()}"  # the control group of all pods
MASKED = [  # what kubelet asks for when a container says nothing of it
    "/proc/asound", "/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
    "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware",
]  # fmt: skip
READ_ONLY = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
Error = grpc.RpcError


@cache
def _methods() -> dict[str, tuple[str, type, type]]:
    """Each method's path, and the classes of what it takes and gives, out of ``cri.proto``."""
    with tempfile.NamedTemporaryFile() as file:
        code = protoc.main(
            ["protoc", f"-I{HERE}", f"--descriptor_set_out={file.name}", "cri.proto"]
        )
        assert code == 0, "cri.proto does not compile"
        described = descriptor_pb2.FileDescriptorSet.FromString(file.read())
    pool = descriptor_pool.DescriptorPool()
    pool.Add(described.file[0])
    services = pool.FindFileByName("cri.proto").services_by_name.values()
    message = message_factory.GetMessageClass
    return {
        m.name: (f"/{s.full_name}/{m.name}", message(m.input_type), message(m.output_type))
        for s in services
        for m in s.methods
    }


class Client:
    """Calls by name, with fields as keywords: ``cri("ExecSync", container_id=…, cmd=[…])``."""

    def __init__(self, socket: str) -> None:
        self.socket = socket

    def __call__(self, method: str, *, seconds: float = TIMEOUT, **fields: object):
        """Make a call; raises ``Error`` when it is answered by one."""
        path, takes, gives = _methods()[method]
        request = json_format.ParseDict(fields, takes())
        options = [("grpc.use_local_subchannel_pool", 1)]
        with grpc.insecure_channel(f"unix:{self.socket}", options) as channel:
            call = channel.unary_unary(
                path,
                request_serializer=takes.SerializeToString,
                response_deserializer=gives.FromString,
            )
            return call(request, timeout=seconds)


@dataclass(frozen=True)
class Done:
    """How a command ended, and what it wrote."""

    code: int
    out: str
    err: str


def merged(base: dict, change: dict) -> dict:
    """A table with another laid over it, table by table."""
    both = dict(base)
    for key, value in change.items():
        old = both.get(key)
        both[key] = (
            merged(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
        )
    return both


class Pod:
    """A sandbox and its containers; what they write on the host is below ``directory``."""

    def __init__(self, cri: Client, runtime: str, directory: str, image: str, **changes) -> None:
        self.cri = cri
        self.runtime = runtime
        self.image = image
        self.directory = tempfile.mkdtemp(dir=directory)
        name = f"pod-{next(NAMES)}"
        self.config = merged(
            {
                "metadata": {"name": name, "uid": f"uid-{name}", "namespace": "tests"},
                "hostname": name, "log_directory": f"{self.directory}/logs",
                "linux": {
                    "cgroup_parent": f"/{GROUP}",
                    "security_context": {"namespace_options": {"pid": "CONTAINER"}},
                },
            },
            changes,
        )  # fmt: skip
        self.ids: dict[str, str] = {}
        self.id = self.run()

    def run(self) -> str:
        """Make the sandbox (once more, when it was removed); its id."""
        answer = self.cri("RunPodSandbox", config=self.config, runtime_handler=self.runtime)
        return answer.pod_sandbox_id

    def create(self, name: str, *command: str, **changes) -> str:
        """Make a container that is not started; its id."""
        namespaces = self.config["linux"]["security_context"]["namespace_options"]
        config = merged(
            {
                "metadata": {"name": name}, "image": {"image": self.image},
                "command": list(command), "log_path": f"{name}.log",
                "linux": {"security_context": {
                    "namespace_options": namespaces,
                    "masked_paths": MASKED, "readonly_paths": READ_ONLY,
                }},
            },
            changes,
        )  # fmt: skip
        answer = self.cri(
            "CreateContainer", pod_sandbox_id=self.id, config=config, sandbox_config=self.config
        )
        self.ids[name] = answer.container_id
        return answer.container_id

    def up(self, name: str, *command: str, **changes) -> str:
        """Make and start a container (which sleeps, unless told otherwise); its name."""
        self.create(name, *(command or ("sleep", "3600")), **changes)
        self.cri("StartContainer", container_id=self.ids[name])
        return name

    def exec(self, name: str, *command: str, timeout: int = 0) -> Done:
        """Run a command in a container to its end."""
        answer = self.cri(
            "ExecSync", container_id=self.ids[name], cmd=list(command), timeout=timeout
        )
        out, err = (
            text.decode(errors="replace").strip() for text in (answer.stdout, answer.stderr)
        )
        return Done(answer.exit_code, out, err)

    def sh(self, name: str, script: str) -> str:
        """Run a shell's words in a container; their output."""
        done = self.exec(name, "sh", "-c", script)
        assert done.code == 0, f"{script!r} ended with {done.code}: {done.err}"
        return done.out

    def once(self, script: str, **changes) -> Done:
        """Run a shell's words as a container of their own to their end; it is removed."""
        name = f"once-{next(NAMES)}"
        self.up(name, "sh", "-c", script, **changes)
        code = self.ended(name).exit_code
        streams = {"stdout": "", "stderr": ""}
        for line in self.log(name):
            streams[line.stream] += line.text + ("\n" if line.whole else "")
        self.remove(name)
        return Done(code, streams["stdout"].strip(), streams["stderr"].strip())

    def status(self, name: str):
        """What is known of a container."""
        return self.cri("ContainerStatus", id=self.ids[name]).status

    def state(self, name: str) -> str:
        """The state of a container in a word."""
        return ("created", "running", "exited", "unknown")[self.status(name).state]

    def ended(self, name: str, timeout: float = 30):
        """Wait until a container has ended; what is known of it."""
        until(lambda: self.state(name) == "exited", timeout, f"the end of {name}")
        return self.status(name)

    def ready(self) -> bool:
        """Whether the sandbox is ready."""
        return self.sandbox().state == 0

    def sandbox(self):
        """What is known of the sandbox."""
        return self.cri("PodSandboxStatus", id=self.id).status

    @property
    def ip(self) -> str:
        """The pod's address."""
        return self.sandbox().network.ip

    def stop(self, name: str, grace: int = 0) -> None:
        """Stop a container."""
        self.cri("StopContainer", container_id=self.ids[name], timeout=grace)

    def remove(self, name: str) -> None:
        """Remove a container, running or not."""
        self.cri("RemoveContainer", container_id=self.ids.pop(name))

    def end(self) -> None:
        """Stop and remove the sandbox with all that is in it."""
        self.cri("StopPodSandbox", pod_sandbox_id=self.id)
        self.cri("RemovePodSandbox", pod_sandbox_id=self.id)

    def log_path(self, name: str) -> str:
        """Where a container's log is."""
        return f"{self.directory}/logs/{name}.log"

    def log(self, name: str) -> list[Line]:
        """The lines of a container's log."""
        try:
            with open(self.log_path(name), encoding="utf-8", errors="replace") as file:
                return [Line.parsed(line) for line in file.read().splitlines()]
        except FileNotFoundError:
            return []

    def logged(self, name: str, text: str, timeout: float = 30) -> list[Line]:
        """Wait until a line of a container's log holds a text; all lines."""

        def found() -> list[Line]:
            lines = self.log(name)
            return lines if any(text in line.text for line in lines) else []

        return until(found, timeout, f"{text!r} in the log of {name}")


@dataclass(frozen=True)
class Line:
    """A line of a container's log, as Kubernetes lays it down: time, stream, tag, text."""

    time: str
    stream: str
    whole: bool
    text: str

    @classmethod
    def parsed(cls, line: str) -> Line:
        """Take a line apart; fails on what is none."""
        moment, stream, tag, text = line.split(" ", 3)
        assert stream in ("stdout", "stderr"), line
        assert tag in ("F", "P"), line
        return cls(moment, stream, tag == "F", text)


def until(what, timeout: float = 30, name: str = "it"):
    """Wait until a function gives something true; gives that."""
    deadline = time.monotonic() + timeout
    while not (found := what()):
        assert time.monotonic() < deadline, f"{name} did not come to be"
        time.sleep(0.03)
    return found
