"""The agent's API: messages, methods, and a hash of both that host and guest compare.

One service, ``kata.Agent``. A container's first process has the exec id "" (empty); processes
added later have one of their own. Paths are the guest's unless said otherwise. Times are
nanoseconds since the epoch.

Standard streams are ttRPC streams: the request opens it, then data frames carry raw bytes in one
direction and window grants (``flow``) in the other. ``ReadOutput`` ends with the agent closing
its direction and a ``StreamResponse``; ``WriteInput`` ends with the host closing its direction
(the process then reads end of file) or with the process closing its end, and a ``StreamResponse``.
"""

from __future__ import annotations

from kata.wire.calls import ContainerRequest as ContainerRequest  # noqa: PLC0414 - part of this API
from kata.wire.calls import DeleteRequest as DeleteRequest  # noqa: PLC0414 - part of this API
from kata.wire.calls import Empty as Empty  # noqa: PLC0414 - part of this API
from kata.wire.calls import ProcessRequest as ProcessRequest  # noqa: PLC0414 - part of this API
from kata.wire.calls import ResizeRequest as ResizeRequest  # noqa: PLC0414 - part of this API
from kata.wire.calls import SignalRequest as SignalRequest  # noqa: PLC0414 - part of this API
from kata.wire.protobuf import (
    Message,
    boolean,
    bytes_,
    describe,
    int32,
    int64,
    mapping,
    nested,
    repeated,
    string,
    uint32,
    uint64,
)

SERVICE = "kata.Agent"
# path of a namespace in a specification: of type network, the one that holds the sandbox's cards
SANDBOX_NETWORK = "kata:sandbox"
RESOLVER = "127.0.0.11"  # where Docker answers names, in each network namespace of its own
CARD_PREFIX = "02:00:00:00:00:"  # of the MAC addresses that network cards are made with
DISK_PREFIX = "plugged"  # of the serial numbers of disks that are plugged
STDIN, STDOUT, STDERR = 0, 1, 2
CONTAINER_PREFIX = "kata:container:"  # and an id: the path of a namespace of that container


class ConfigureRequest(Message):
    """The first call after every start, cold or restored: what makes this VM itself.

    The agent credits ``entropy`` to the kernel and reseeds, sets the clock, the host name and the
    machine id, and only then answers or does anything else. ``api_hash`` must equal its own.
    """

    api_hash: str = string(1)
    realtime_ns: int = int64(2)
    entropy: bytes = bytes_(3)
    hostname: str = string(4)
    machine_id: str = string(5)
    sandbox_id: str = string(6)


class ConfigureResponse(Message):
    """What the guest is."""

    api_hash: str = string(1)
    kernel_release: str = string(2)
    python_version: str = string(3)
    memory_bytes: int = uint64(4)
    cpus: int = uint32(5)


class Node(Message):
    """A directory, regular file or symbolic link of a tree, with its kind in ``mode`` (st_mode).

    ``path`` is below the tree's top, which itself is "". ``content`` is a file's, or where a link
    leads; ``mtime_ns`` counts for files alone.
    """

    path: str = string(1)
    mode: int = uint32(2)
    uid: int = uint32(3)
    gid: int = uint32(4)
    mtime_ns: int = int64(5)
    content: bytes = bytes_(6)


class Storage(Message):
    """Something to mount in the guest, outside any container, before the container is made.

    ``driver``: ``blk`` (``source`` is the serial of a virtio-blk disk), ``virtio-fs`` (``source``
    is a tag), ``tmpfs``, ``overlay``, ``bind`` (``source`` is a guest path) or ``tree`` (a tmpfs
    with ``nodes``, parents first, which ``UpdateTree`` changes). ``options`` are
    mount options as in fstab. Mounted at ``mount_point``, which is made.
    """

    driver: str = string(1)
    source: str = string(2)
    fstype: str = string(3)
    options: list[str] = repeated(string(4))
    mount_point: str = string(5)
    nodes: list[Node] = repeated(nested(Node, 6))


class Seccomp(Message):
    """A compiled filter: ``struct sock_filter[]`` in the guest's byte order; seccomp(2) flags."""

    bpf: bytes = bytes_(1)
    flags: int = uint32(2)


class PrepareRequest(Message):
    """Make ready all that does not depend on the container; called before a template is frozen.

    Loads ``modules``, mounts ``storages`` for good, and parks a half-made container unless one
    waits already: a process with its namespaces and the standard mounts, for a ``CreateContainer``
    that can use it. With ``spec`` (an OCI config.json) its root is made too, of ``storages``: for
    containers whose files are the same. Where that has a ``process``, it is
    settled as well: confined by all of it and ``seccomp``, with empty ``files`` bound at these
    paths, so that it waits for their content and a ``Program``.
    """

    modules: list[str] = repeated(string(1))
    storages: list[Storage] = repeated(nested(Storage, 2))
    spec: bytes = bytes_(3)
    seccomp: Seccomp | None = nested(Seccomp, 4)
    files: list[str] = repeated(string(5))


class SetClockRequest(Message):
    """Step the clock; sent once more shortly after a restore, when answers are quick."""

    realtime_ns: int = int64(1)


class ClockResponse(Message):
    """The guest's clock when it answered."""

    realtime_ns: int = int64(1)


class File(Message):
    """A small file for the container, bind-mounted over ``path`` (made when missing)."""

    path: str = string(1)
    content: bytes = bytes_(2)
    mode: int = uint32(3)
    readonly: bool = boolean(4)


class Program(Message):
    """What a settled container runs: arguments and environment, each ended by a zero byte.

    ``resources`` is OCI's linux.resources (JSON), or empty. ``unhurried``: who asked waits for
    what the program writes, and for the news that it runs only with that or by ``AwaitStart``.
    """

    args: bytes = bytes_(1)
    env: bytes = bytes_(2)
    resources: bytes = bytes_(3)
    unhurried: bool = boolean(4)


class CreateContainerRequest(Message):
    """Make a container up to, not including, the start of its process.

    ``spec`` is the OCI config.json (UTF-8 JSON), with ``root.path`` a guest path that exists once
    ``storages`` are mounted, and ``linux.seccomp`` replaced by ``seccomp``; hooks that run on the
    host left out. ``stdin``/``stdout``/``stderr`` say which streams are wanted; the others
    are ``/dev/null``. With ``process.terminal`` all three are the terminal, output is ``STDOUT``.
    ``init`` puts a small init in front of the process, which reaps and forwards signals.
    """

    container_id: str = string(1)
    spec: bytes = bytes_(2)
    storages: list[Storage] = repeated(nested(Storage, 3))
    files: list[File] = repeated(nested(File, 4))
    seccomp: Seccomp | None = nested(Seccomp, 5)
    stdin: bool = boolean(6)
    stdout: bool = boolean(7)
    stderr: bool = boolean(8)
    init: bool = boolean(9)
    program: Program | None = nested(Program, 10)


class PidResponse(Message):
    """A process id in the guest's first pid namespace."""

    pid: int = uint32(1)


class ExecRequest(Message):
    """Start another process in a running container; ``process`` is OCI's process object (JSON).

    Without ``seccomp`` the process has no filter: the caller repeats the container's.
    """

    container_id: str = string(1)
    exec_id: str = string(2)
    process: bytes = bytes_(3)
    seccomp: Seccomp | None = nested(Seccomp, 4)
    stdin: bool = boolean(5)
    stdout: bool = boolean(6)
    stderr: bool = boolean(7)


class WaitResponse(Message):
    """How a process ended: ``exit_code`` is its own, or 128 + ``signal``."""

    exit_code: int = uint32(1)
    signal: int = uint32(2)
    exited_at_ns: int = int64(3)
    oom_killed: bool = boolean(4)


class StreamRequest(Message):
    """Opens a standard stream of a process; ``stream`` is 0 (``WriteInput``), 1 or 2."""

    container_id: str = string(1)
    exec_id: str = string(2)
    stream: int = uint32(3)


class StreamResponse(Message):
    """The stream ended; ``count`` is how many bytes the agent carried."""

    count: int = uint64(1)


class ProcessInfo(Message):
    """A process of a container, as the guest sees it."""

    pid: int = uint32(1)
    parent: int = uint32(2)
    uid: int = uint32(3)
    state: str = string(4)
    command: str = string(5)
    cpu_ns: int = uint64(6)
    rss_bytes: int = uint64(7)
    exec_id: str = string(8)
    started_at_ns: int = int64(9)


class ListProcessesResponse(Message):
    """The processes of a container; ``pid`` is in the guest's first pid namespace."""

    processes: list[ProcessInfo] = repeated(nested(ProcessInfo, 1))


class StatsResponse(Message):
    """What a container used: the files of its cgroup, by name (``memory.current`` etc.)."""

    files: dict[str, str] = mapping(1)
    guest_memory_total: int = uint64(2)
    guest_memory_available: int = uint64(3)


class UpdateRequest(Message):
    """New limits; ``resources`` is OCI's linux.resources (JSON)."""

    container_id: str = string(1)
    resources: bytes = bytes_(2)


class UpdateTreeRequest(Message):
    """All that is to be in a storage ``tree`` from now on; who watches it is told as on the host.

    What is new is there in full before a link leads to it, and what is replaced is so at once.
    """

    mount_point: str = string(1)
    nodes: list[Node] = repeated(nested(Node, 2))


class NetworkAddress(Message):
    """An address of an interface; ``scope`` is the kernel's number, ``peer`` the other end's."""

    address: str = string(1)
    prefix: int = uint32(2)
    scope: int = uint32(3)
    broadcast: str = string(4)
    peer: str = string(5)


class Interface(Message):
    """A network card: found by ``device``, the MAC address it was made with; the rest is set.

    ``noarp``: it resolves no addresses.
    """

    device: str = string(1)
    name: str = string(2)
    mac: str = string(3)
    mtu: int = uint32(4)
    noarp: bool = boolean(5)
    addresses: list[NetworkAddress] = repeated(nested(NetworkAddress, 6))


class Hop(Message):
    """One way of a route with several; ``interface`` is a name."""

    gateway: str = string(1)
    interface: str = string(2)
    weight: int = uint32(3)


class Route(Message):
    """A route of the main table; numbers are the kernel's, ``destination`` "" is the default."""

    ipv6: bool = boolean(1)
    destination: str = string(2)
    prefix: int = uint32(3)
    gateway: str = string(4)
    interface: str = string(5)
    source: str = string(6)
    scope: int = uint32(7)
    metric: int = uint32(8)
    kind: int = uint32(9)
    flags: int = uint32(10)
    mtu: int = uint32(11)
    hops: list[Hop] = repeated(nested(Hop, 12))


class Neighbour(Message):
    """A neighbour whose link-layer address is known for good."""

    interface: str = string(1)
    address: str = string(2)
    mac: str = string(3)


class UpdateNetworkRequest(Message):
    """All that the sandbox's network is to be from now on; what is not named goes.

    Answered when it is so: an interface that is being plugged is waited for.
    """

    interfaces: list[Interface] = repeated(nested(Interface, 1))
    routes: list[Route] = repeated(nested(Route, 2))
    neighbours: list[Neighbour] = repeated(nested(Neighbour, 3))


class ResolveRequest(Message):
    """Pass on what containers ask at ``address`` and ``port``, datagrams and connections.

    The stream carries a ``NameMessage`` in each data frame, a query one way and its answer the
    other: at most ``dns.MOST_QUERIES`` are under way, none larger than ``dns.MAX_SIZE``.
    """

    address: str = string(1)
    port: int = uint32(2)


class NameMessage(Message):
    """A query of the guest's, or the answer by the same ``number``; empty if there is none."""

    number: int = uint32(1)
    stream: bool = boolean(2)
    message: bytes = bytes_(3)


class ForwardRequest(Message):
    """Connect to a port of the loopback that containers share, by IPv4 or else by IPv6.

    The stream carries a ``ForwardMessage`` in each data frame, both ways alike. It ends with a
    ``StreamResponse`` when both directions have, with an error when the connection is refused or
    reset, and when the host closes its direction, which resets the connection.
    """

    port: int = uint32(1)


class ForwardMessage(Message):
    """Bytes of a connection, a window grant (``flow``) for those of the other way, the last."""

    data: bytes = bytes_(1)
    grant: bytes = bytes_(2)
    end: bool = boolean(3)


class GuestEvent(Message):
    """Something that happened: ``oom`` (a container), more to come; a data frame of ``Events``."""

    kind: str = string(1)
    container_id: str = string(2)
    detail: str = string(3)
    exit_status: int = int32(4)


# method -> (request, response); the streaming ones are marked with their kind
METHODS: dict[str, tuple[type[Message], type[Message]]] = {
    "Configure": (ConfigureRequest, ConfigureResponse),
    "Prepare": (PrepareRequest, Empty),
    "SetClock": (SetClockRequest, ClockResponse),
    "CreateContainer": (CreateContainerRequest, PidResponse),
    "StartContainer": (ContainerRequest, Empty),
    "AwaitStart": (ContainerRequest, Empty),
    "Exec": (ExecRequest, PidResponse),
    "Signal": (SignalRequest, Empty),
    "Wait": (ProcessRequest, WaitResponse),
    "Resize": (ResizeRequest, Empty),
    "WriteInput": (StreamRequest, StreamResponse),
    "ReadOutput": (StreamRequest, StreamResponse),
    "ListProcesses": (ContainerRequest, ListProcessesResponse),
    "Stats": (ContainerRequest, StatsResponse),
    "Update": (UpdateRequest, Empty),
    "Pause": (ContainerRequest, Empty),
    "Resume": (ContainerRequest, Empty),
    "Delete": (DeleteRequest, Empty),
    "UpdateTree": (UpdateTreeRequest, Empty),
    "UpdateNetwork": (UpdateNetworkRequest, Empty),
    "Resolve": (ResolveRequest, Empty),
    "Forward": (ForwardRequest, StreamResponse),
    "Events": (Empty, Empty),
    "Shutdown": (Empty, Empty),
}
STREAMING = frozenset(("WriteInput", "ReadOutput", "Events", "Resolve", "Forward"))


def api_hash() -> str:
    """A hash of every message and method; host and guest must have the same."""
    from zlib import crc32

    seen: dict[str, str] = {}
    calls = []
    for name, (request, response) in METHODS.items():
        _collect(request, seen)
        _collect(response, seen)
        calls.append(f"{name}({request.__name__}){response.__name__}")
    text = ";".join((*(seen[n] for n in sorted(seen)), *calls))
    return f"{crc32(text.encode()):08x}-{len(text)}"


def _collect(cls: type[Message], seen: dict[str, str]) -> None:
    seen[cls.__name__] = describe(cls)
    for field in cls.FIELDS:
        if field.message is not None and field.message.__name__ not in seen:
            _collect(field.message, seen)
