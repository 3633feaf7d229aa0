"""A sandbox without a container, as containerd's sandbox API wants it: CreateSandbox makes it.

Until that call nothing is known of the machine, and this process has a single thread, which
spawning the machine needs; a ready sandbox of the pool takes its place where one fits. It is on
disk from the beginning, so that it is found if it is killed before anybody asked it for something.
What holds the namespaces of the pod is a container that is never started: it costs no program and
no file of the host.
"""

from __future__ import annotations

import os
import time
from _socket import socket

from kata.config.load import load
from kata.errors import HostError, KataError, WrongState
from kata.oci.pods import Shape, sizing
from kata.runtime.birth import Child, detach
from kata.runtime.machines import ready, resolve_shape
from kata.runtime.store import ContainerState, Store, new_id, write_atomic
from kata.shim import address as addresses
from kata.shim import podfiles
from kata.shim.bundle import LOG, PID, store_name
from kata.shim.seat import reserve, supervisor_of
from kata.shim.server import failure
from kata.shim.workload import ShimWorkload
from kata.wire.agent_api import SANDBOX_NETWORK, CreateContainerRequest, File, Storage
from kata.wire.containerd_sandbox import CreateSandboxRequest, PodConfig
from kata.wire.containerd_types import SANDBOX_SERVICE
from kata.wire.quickjson import dumps
from kata.wire.record import record, replace
from kata.wire.ttrpc import HEADER, Connection, Request

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

    from kata.config.settings import Config
    from kata.runtime.machines import Launch
    from kata.shim.seat import Seat
    from kata.wire.ttrpc import Event

_HOLDER = "/pause"  # what the container that is never started would run
_PRIVATE = ("mount", "pid", "ipc", "uts", "cgroup")
_RECEIVE = 64 << 10


@record
class Arrived:
    """A connection on which CreateSandbox came, and what came with it; ``raw``: all from it on."""

    sock: socket
    connection: Connection
    events: tuple[Event, ...]
    stream: int
    request: CreateSandboxRequest
    raw: bytes


@record
class Noted:
    """What is on disk of a sandbox that is not made yet, and the configuration that says where."""

    config: Config
    store: Store
    state: ContainerState
    lock: int


def serve(seat: Seat) -> NoReturn:
    """Be the shim of the sandbox to its end."""
    code = 0
    try:
        log = f"{seat.bundle}/{LOG}"
        keep = {seat.listener.fileno(), seat.host_network}
        detach({}, keep, log if os.path.lexists(log) else "/dev/null")
        noted = None
        try:
            noted = _note(seat)
        except KataError:
            pass  # CreateSandbox hears of it
        while True:
            arrived = _until_create(seat, noted)
            try:
                noted = noted or _note(seat)
                _begin(seat, arrived, noted)
                break
            except KataError as error:
                arrived.sock.sendall(failure(arrived.stream, error))
                arrived.sock.close()
    except BaseException:
        from traceback import print_exc

        print_exc()
        code = 1
    finally:
        os._exit(code)


def _note(seat: Seat) -> Noted:
    """Take the sandbox's name, until this process ends. Raises ``AlreadyExists`` and others."""
    config = load(seat.config_path or None)
    store = Store(config.runtime.state_root)
    state = ContainerState(
        id=new_id(), name=store_name(seat.order), command=(_HOLDER,), bundle=seat.bundle,
        created_ns=time.time_ns(), cgroup=f"kata/{seat.order.id}", traces=(seat.path,),
    )  # fmt: skip
    return Noted(config, store, state, reserve(store, state))


def _leave(seat: Seat, noted: Noted | None) -> None:
    """Leave nothing: no sandbox was made."""
    addresses.forget(seat.path)
    if noted is not None:
        noted.store.forget(noted.state)


def _until_create(seat: Seat, noted: Noted | None) -> Arrived:
    """Wait for CreateSandbox; other calls before it are refused, but for those that end it."""
    while True:
        fd, _ = seat.listener._accept()  # type: ignore[attr-defined]
        sock = socket(fileno=fd)
        connection, raw = Connection(), b""
        while data := sock.recv(_RECEIVE):
            events = connection.receive(data)
            raw += data
            for index, event in enumerate(events):
                if not isinstance(event, Request):
                    continue
                if (event.service, event.method) == (SANDBOX_SERVICE, "CreateSandbox"):
                    asked = CreateSandboxRequest.decode(event.payload)
                    return Arrived(
                        sock, connection, tuple(events[index:]), event.stream, asked,
                        after(raw, index),
                    )  # fmt: skip
                if event.method in ("Shutdown", "ShutdownSandbox"):
                    _leave(seat, noted)
                    sock.sendall(Connection.respond(event.stream, b""))
                    os._exit(0)
                sock.sendall(failure(event.stream, WrongState("there is no sandbox yet")))
            raw = after(raw, len(events))
        sock.close()


def after(raw: bytes, count: int) -> bytes:
    """What follows so many messages, which are whole."""
    for _ in range(count):
        raw = raw[HEADER.size + HEADER.unpack_from(raw)[0] :]
    return raw


def arrived(sock: socket, raw: bytes) -> Arrived:
    """The same in another process, from ``raw``."""
    connection = Connection()
    events = tuple(connection.receive(raw))
    first = events[0]
    assert isinstance(first, Request)
    asked = CreateSandboxRequest.decode(first.payload)
    return Arrived(sock, connection, events, first.stream, asked, raw)


def pod_of(request: CreateSandboxRequest) -> PodConfig:
    """CRI's description of the pod among the options; an empty one if it is not there."""
    given = request.options
    if given is None or not given.type_url.endswith("runtime.v1.PodSandboxConfig"):
        return PodConfig()
    return PodConfig.decode(given.value)


def shape_of(request: CreateSandboxRequest) -> Shape:
    """What machine the pod needs."""
    linux = pod_of(request).linux
    resources = linux.resources if linux is not None else None
    if resources is None:
        return sizing({"annotations": request.annotations})
    cpu = {"quota": resources.cpu_quota, "period": resources.cpu_period}
    memory = {"limit": resources.memory_limit_in_bytes}
    return sizing({"linux": {"resources": {"cpu": cpu, "memory": memory}}})


def _begin(seat: Seat, arrived: Arrived, noted: Noted) -> None:
    """Make the machine, and see it to its end. Raises what keeps it from starting."""
    request, config, store = arrived.request, noted.config, noted.store
    launch = resolve_shape(shape_of(request), config, say=lambda _text: None)
    state = replace(noted.state, created_ns=time.time_ns())
    pod = pod_of(request)
    try:
        podfiles.write(seat.bundle, pod)
    except OSError as error:
        raise HostError(f'cannot write to "{seat.bundle}"', why=error.strerror or "") from None
    network = _network(request.netns_path)
    seat = replace(seat, network=network, hostname=pod.hostname)
    _hand_over(seat, arrived, noted, launch)
    first = HolderWorkload(seat, state, config.runtime.data_root, sysctls_of(request))
    child = Child((first, launch), config, store, state, supervisor_of(seat, arrived))
    child.go([], {})


def sysctls_of(request: CreateSandboxRequest) -> dict[str, str]:
    """The kernel parameters of the pod."""
    linux = pod_of(request).linux
    return dict(linux.sysctls) if linux is not None else {}


def _hand_over(seat: Seat, arrived: Arrived, noted: Noted, launch: Launch) -> None:
    """Leave all of it to a ready sandbox of the pool, and end; or return, if there is none."""
    member = ready(noted.config, launch)
    if member is None:
        return
    from kata.shim.handing import describe_sandbox, descriptors

    order = describe_sandbox(seat, noted.store, noted.state, arrived.raw)
    if member.hand(order, [*descriptors(seat, noted.lock), arrived.sock.fileno()]):
        write_atomic(f"{seat.bundle}/{PID}", str(member.pid).encode())
        os._exit(0)


def _network(path: str) -> int:
    if not path:
        raise WrongState(
            "Host networking requested, not supported by runtime", why="CreateSandbox: netns_path"
        )
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise HostError(f'the network namespace "{path}"', why=error.strerror or "") from None


class HolderWorkload(ShimWorkload):
    """The container that holds a pod's namespaces and is never started.

    ``sysctls`` are set in them.
    """

    def __init__(
        self, seat: Seat, state: ContainerState, data_root: str, sysctls: dict[str, str]
    ) -> None:
        spaces: list[dict[str, Any]] = [{"type": kind} for kind in _PRIVATE]
        spec = {
            "ociVersion": "1.0.2", "hostname": seat.hostname,
            "process": {"args": [_HOLDER], "cwd": "/", "env": [], "user": {"uid": 0, "gid": 0}},
            "root": {"path": f"/run/kata/containers/{state.id}/rootfs"},
            "linux": {
                "namespaces": [*spaces, {"type": "network", "path": SANDBOX_NETWORK}],
                "sysctl": sysctls,
            },
        }  # fmt: skip
        super().__init__(seat.order.id, state, spec, data_root, seat.network)
        self.deferred = True

    def holder_request(self, share: Storage) -> CreateContainerRequest:
        """What the agent is asked: an empty root, and a program that is there by its name.

        ``share`` is mounted with it, for those that come later.
        """
        root = self.spec["root"]["path"]
        spec = {**self.spec, "hostname": self.hostname}
        return CreateContainerRequest(
            container_id=self.id, spec=dumps(spec).encode(),
            storages=[
                share,
                Storage(
                    driver="tmpfs", source="tmpfs", fstype="tmpfs", mount_point=root,
                    options=["size=64k", "mode=755"],
                ),
            ],
            files=[File(path=_HOLDER, content=b"#!/\n", mode=0o755, readonly=True)],
        )  # fmt: skip
