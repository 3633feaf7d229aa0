"""The agent's methods: requests in, answers out, now or when the outcome is there.

The rule: a handler never blocks on a process; what takes time is an ``Outcome``. A request about a
container that is still being made waits until it is made.
"""

from __future__ import annotations

import gc

from kata.errors import (
    AlreadyExists,
    InvalidInput,
    KataError,
    NotFound,
    ProtocolError,
    Unsupported,
    WrongState,
)
from kata.guest import inspect, modules
from kata.guest.added import Adder
from kata.guest.channel import Channel
from kata.guest.launch import Launcher
from kata.guest.loop import Loop
from kata.guest.machine import Machine
from kata.guest.network import Network
from kata.guest.process import Outcome
from kata.guest.resolver import Resolver
from kata.guest.rootfs import failed
from kata.guest.spec import document, identifier
from kata.linux.cgroup2 import enable_controllers
from kata.wire import agent_api as api
from kata.wire.agent_api import METHODS, SERVICE, STDIN, Empty
from kata.wire.flow import WINDOW
from kata.wire.record import record
from kata.wire.ttrpc import Connection, Data, Request

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from kata.guest.container import Container
    from kata.guest.process import Process
    from kata.wire.protobuf import Message
    from kata.wire.ttrpc import Event

_MAX_EVENTS_WAITING = 256
# requests that make sense, or are answered in their own way, while a container is being made
_AT_ONCE = frozenset(("CreateContainer", "StartContainer", "AwaitStart", "Wait", "Delete"))


@record
class Place:
    """Where the agent keeps what it makes."""

    run: str = "/run/kata"
    cgroup: str = "/sys/fs/cgroup"


class Agent:
    """The state of the guest, and the methods on it."""

    def __init__(self, place: Place = Place(), machine: Machine | None = None) -> None:  # noqa: B008
        self.loop = Loop()
        self.machine = machine or Machine()
        self.power_off_wanted = False
        self._place = place
        self._channel: Channel | None = None
        self._containers: dict[str, Container] = {}
        self._network = Network(self.loop)
        self._resolver = Resolver(self.loop, place.cgroup)
        self._launcher = Launcher(
            self.loop, place.run, place.cgroup, self._containers, self._move_network
        )
        self._adder = Adder(self.loop)
        self._event_stream = 0
        self._early: dict[int, list[Data]] = {}  # sent on streams that wait to be opened
        self._events: list[bytes] = []
        self._api_hash = api.api_hash()
        enable_controllers(place.cgroup)

    def serve(self, fd: int) -> None:
        """Serve one host over a descriptor until it goes away or wants the power off."""
        channel = self._channel = Channel(self.loop, fd, self._event)
        self._event_stream = 0
        self._early.clear()
        self.loop.after_each(channel.flush)
        self.loop.run()
        channel.flush()
        channel.close()
        for stream in list(channel.streams.values()):
            stream.detach()

    def _event(self, event: Event) -> None:
        if isinstance(event, Request):
            self._request(event)
        elif isinstance(event, Data):
            channel = self._channel
            stream = channel.streams.get(event.stream) if channel else None
            if stream is not None:
                stream.received(event)
            elif event.stream in self._early:
                self._keep(event)
            # else it ended meanwhile

    def _keep(self, event: Data) -> None:
        """Input for a process that is still being made; the host may send one window of it."""
        early = self._early[event.stream]
        if sum(len(data.payload) for data in early) + len(event.payload) > WINDOW:
            raise ProtocolError("stream: peer sent more than its window")
        early.append(event)

    def _later(self, ready: Outcome, request: Request) -> None:
        """Do this request once that is so; what is sent on its stream meanwhile is kept."""
        if request.method in api.STREAMING:
            self._early.setdefault(request.stream, [])
        ready.then(lambda _: self._request(request))

    def _request(self, request: Request) -> None:
        try:
            if request.service != SERVICE or request.method not in METHODS:
                raise Unsupported(f'no method "{request.service}/{request.method}"')
            message = METHODS[request.method][0].decode(request.payload)
            self._dispatch(request, message)
        except KataError as error:
            self._answer(request.stream, error)
        except OSError as error:
            self._answer(request.stream, failed(request.method, error))

    def _dispatch(self, request: Request, message: Any) -> None:
        container = self._containers.get(getattr(message, "container_id", ""))
        if container is not None and _too_early(request, message, container.init):
            self._later(container.init.ready, request)
            return
        if request.method in api.STREAMING:
            self._open_stream(request, message)
            return
        result = _HANDLERS[request.method](self, message)
        stream = request.stream
        if isinstance(result, Outcome):
            result.then(lambda value: self._answer(stream, value))
        else:
            self._answer(stream, result)

    def _answer(self, stream: int, value: Message | KataError) -> None:
        self._early.pop(stream, None)
        if self._channel is None:
            return
        if isinstance(value, KataError):
            self._channel.answer(Connection.fail(stream, value))
        else:
            self._channel.answer(Connection.respond(stream, value.encode()))

    def _open_stream(self, request: Request, message: Any) -> None:
        assert self._channel is not None
        if request.method == "Events":
            self._event_stream = request.stream
            for data in self._events:
                self._channel.answer(Connection.data(request.stream, data))
            self._events.clear()
            return
        if request.method == "Resolve":
            self._resolver.open(self._channel, request.stream, message)
            return
        if request.method == "Forward":
            from kata.guest.forward import Forward  # most guests are never asked for it

            Forward(self.loop, self._channel, request.stream).connect(message.port)
            return
        if (request.method == "WriteInput") != (message.stream == STDIN):
            raise InvalidInput(f"stream {message.stream} goes the other way")
        process = self._container(message.container_id).process(message.exec_id)
        if process.ready.value is None and message.stream not in process.streams:
            self._later(process.ready, request)  # a terminal is made by the process itself
            return
        stream = process.stream(message.stream)
        stream.open(self._channel, request.stream)
        for early in self._early.pop(request.stream, ()):
            stream.received(early)

    def _emit(self, event: api.GuestEvent) -> None:
        data = event.encode()
        if self._event_stream and self._channel is not None and not self._channel.closed:
            self._channel.answer(Connection.data(self._event_stream, data))
        elif len(self._events) < _MAX_EVENTS_WAITING:
            self._events.append(data)

    def _container(self, container_id: str) -> Container:
        try:
            return self._containers[container_id]
        except KeyError:
            raise NotFound(f'no container "{container_id[:64]}" in the guest') from None

    def _oom(self, container_id: str) -> None:
        self._emit(api.GuestEvent(kind="oom", container_id=container_id))

    # the guest as a whole

    def configure(self, request: api.ConfigureRequest) -> Message:
        """Make this VM itself, before anything else."""
        if request.api_hash != self._api_hash:
            raise InvalidInput(
                "the guest's agent does not fit this host's kata",
                why=f'its API is "{self._api_hash}", the host speaks "{request.api_hash}"',
                hint="rebuild the guest image: kata guest build",
            )
        if request.entropy:
            self.machine.add_entropy(request.entropy)
        if request.realtime_ns:
            self.machine.set_clock(request.realtime_ns)
        self.machine.set_names(request.hostname, request.machine_id)
        release, python, memory, cpus = self.machine.describe()
        return api.ConfigureResponse(
            api_hash=self._api_hash, kernel_release=release, python_version=python,
            memory_bytes=memory, cpus=cpus,
        )  # fmt: skip

    def prepare(self, request: api.PrepareRequest) -> Outcome:
        """Make ready what does not depend on the container."""
        for name in request.modules:
            modules.load(identifier(name, "module name"))
        if request.spec:
            parked = self._launcher.root(request)
        else:
            self._launcher.keep(request.storages)
            if request.storages:
                self.machine.forget_files()  # the share need not serve what was used before
            parked = self._launcher.park(shares_network=self._network.look())
            self._network.rehearse()
        gc.collect()
        gc.freeze()
        return parked

    def update_network(self, request: api.UpdateNetworkRequest) -> Message | Outcome:
        """Make the sandbox's network what the host says."""
        if self._containers:
            self.loop.at_last(self._network.settle)
        return self._network.update(request)

    def _move_network(self, namespace: int) -> None:
        """The sandbox's network goes to another namespace, with all that the agent has in it."""
        self._network.move(namespace)
        self._resolver.move()

    def set_clock(self, request: api.SetClockRequest) -> Message:
        """Step the clock."""
        import time

        self.machine.set_clock(request.realtime_ns)
        return api.ClockResponse(realtime_ns=time.time_ns())

    def shutdown(self, _request: Empty) -> Message:
        """Switch the VM off, once the answer is out."""
        self.power_off_wanted = True
        self.loop.stop()
        return Empty()

    # containers

    def create(self, request: api.CreateContainerRequest) -> Outcome:
        """Make a container up to the start of its process."""
        container_id = identifier(request.container_id, "container id")
        if container_id in self._containers:
            raise AlreadyExists(f'container "{container_id}" exists in the guest')
        container = self._launcher.create(request)
        self._containers[container_id] = container
        container.init.started.then(lambda value: self._started(container, value))
        outcome = Outcome()
        container.init.ready.then(lambda value: self._created(container, value, outcome))
        return outcome

    def _created(
        self, container: Container, value: Message | KataError, outcome: Outcome
    ) -> None:
        if not isinstance(value, KataError):
            outcome.settle(value)
            self.loop.at_last(self._network.settle)  # the answer is out by then
            return

        def gone(_value: object) -> None:
            self._destroy(container)
            outcome.settle(value)

        container.init.exited.then(gone)

    def _started(self, container: Container, value: Message | KataError) -> None:
        if not isinstance(value, KataError):
            self.loop.next_time(lambda: self._watch(container))

    def _watch(self, container: Container) -> None:
        if container.init.exited.value is None:
            container.watch_oom(self._oom)

    def start(self, request: api.ContainerRequest) -> Outcome:
        """Let the first process execute its program."""
        self._network.settle()
        return self._container(request.container_id).init.start()

    def await_start(self, request: api.ContainerRequest) -> Outcome:
        """When the first process runs; what was in no hurry to say so says it now."""
        process = self._container(request.container_id).init
        process.look()
        return process.started

    def exec(self, request: api.ExecRequest) -> Outcome:
        """Start another process."""
        container = self._container(request.container_id)
        container.check_exec(identifier(request.exec_id, "exec id"))
        process = self._adder.add(container, request)
        container.add(process)
        outcome = Outcome()
        process.started.then(
            lambda value: outcome.settle(
                value if isinstance(value, KataError) else api.PidResponse(pid=process.pid)
            )
        )
        process.start()
        return outcome

    def signal(self, request: api.SignalRequest) -> Message:
        """Send a signal."""
        if request.signal > 64:
            raise InvalidInput(f"no signal {request.signal}")
        container = self._container(request.container_id)
        if request.all:
            container.signal_all(request.signal)
        else:
            container.process(request.exec_id).signal(request.signal)
        return Empty()

    def wait(self, request: api.ProcessRequest) -> Outcome:
        """How a process ended, once it has."""
        return self._container(request.container_id).process(request.exec_id).exited

    def resize(self, request: api.ResizeRequest) -> Message:
        """Set the size of a terminal."""
        if request.rows > 0xFFFF or request.columns > 0xFFFF:
            raise InvalidInput(f"no terminal has {request.rows} rows, {request.columns} columns")
        process = self._container(request.container_id).process(request.exec_id)
        process.resize(request.rows, request.columns)
        return Empty()

    def list_processes(self, request: api.ContainerRequest) -> Message:
        """The processes of a container."""
        container = self._container(request.container_id)
        found = inspect.processes(container.group.processes(), container.exec_ids())
        return api.ListProcessesResponse(processes=found)

    def stats(self, request: api.ContainerRequest) -> Message:
        """What a container uses; of none, what the guest has."""
        wanted = request.container_id
        files = self._container(wanted).group.stats() if wanted else []
        total, available = self.machine.memory()
        return api.StatsResponse(
            files=files, guest_memory_total=total,
            guest_memory_available=available,
        )  # fmt: skip

    def update(self, request: api.UpdateRequest) -> Message:
        """Set new limits."""
        container = self._container(request.container_id)
        container.group.set(document(request.resources, "resources"))
        return Empty()

    def update_tree(self, request: api.UpdateTreeRequest) -> Message:
        """Change the files of a storage."""
        self._launcher.update_tree(request)
        return Empty()

    def pause(self, request: api.ContainerRequest) -> Outcome:
        """Freeze every process of a container."""
        return self._container(request.container_id).freeze(True)

    def resume(self, request: api.ContainerRequest) -> Outcome:
        """Let the processes of a container go on."""
        return self._container(request.container_id).freeze(False)

    def delete(self, request: api.DeleteRequest) -> Message | Outcome:
        """Remove a container that ended; one that was never started, or by force, is killed."""
        container = self._container(request.container_id)
        if container.init.exited.value is not None:
            self._destroy(container)
            return Empty()
        if container.running and not request.force:
            raise WrongState(f'container "{container.id}" is running', hint="stop it first")
        outcome = Outcome()

        def gone(_value: object) -> None:
            self._destroy(container)
            outcome.settle(Empty())

        container.init.exited.then(gone)
        container.group.kill()
        return outcome

    def _destroy(self, container: Container) -> None:
        if self._containers.get(container.id) is container:
            del self._containers[container.id]
            self._launcher.destroy(container)


def _too_early(request: Request, message: Any, process: Process) -> bool:
    """Whether a request has to wait until the first process is ready for its program.

    The streams of one that is not looked at for a while are there already.
    """
    if request.method in _AT_ONCE or process.ready.value is not None:
        return False
    early = process.unhurried and request.method in api.STREAMING
    return not (early and not message.exec_id)


_HANDLERS: dict[str, Callable[[Agent, Any], Message | Outcome]] = {
    "Configure": Agent.configure, "Prepare": Agent.prepare, "SetClock": Agent.set_clock,
    "CreateContainer": Agent.create, "StartContainer": Agent.start,
    "AwaitStart": Agent.await_start, "Exec": Agent.exec, "Signal": Agent.signal, "Wait": Agent.wait,
    "Resize": Agent.resize, "ListProcesses": Agent.list_processes, "Stats": Agent.stats,
    "Update": Agent.update, "Pause": Agent.pause, "Resume": Agent.resume, "Delete": Agent.delete,
    "UpdateTree": Agent.update_tree, "UpdateNetwork": Agent.update_network,
    "Shutdown": Agent.shutdown,
}  # fmt: skip
