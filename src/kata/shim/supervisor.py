"""The supervisor of a sandbox that containerd drives: the pod's, with containerd's API before it.

The rule: it serves for as long as containerd has not said Shutdown, whatever became of the virtual
machine. Its main thread lives in the network namespace of the sandbox, so that its pid, which is
what containerd is told of the sandbox's own task, leads there.
"""

from __future__ import annotations

import _thread
import gc
import os
import sys
import time

from kata.errors import KataError
from kata.linux import syscalls as sc
from kata.linux.title import set_title
from kata.runtime.cleanup import remove_groups
from kata.runtime.container import Container
from kata.runtime.lifetime import Event, note
from kata.runtime.pod import PodSupervisor, tell_guest
from kata.shim import address as addresses
from kata.shim import leftovers
from kata.shim.order import PROGRAM
from kata.shim.sandboxes import SandboxService
from kata.shim.server import Server
from kata.shim.tasks import TaskService
from kata.shim.workload import ShimWorkload
from kata.storage.plan import Disk
from kata.wire.agent_api import Empty, GuestEvent

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from kata.runtime.lifetime import Lifetime
    from kata.runtime.sandbox import Sandbox
    from kata.runtime.store import ContainerState, Store
    from kata.runtime.timing import Marks
    from kata.shim.empty import Arrived, HolderWorkload
    from kata.shim.pids import Stand
    from kata.shim.seat import Seat
    from kata.wire import agent_api
    from kata.wire.containerd_types import Mount

_DRAIN_S = 10.0  # for output that nobody reads
_LAST_ANSWERS_S = 5.0
_LAST_EVENTS_S = 2.0


class ShimSupervisor(PodSupervisor):
    """One sandbox, driven by ``TaskService`` and ``SandboxService``.

    ``given``: its seat, and the connection that CreateSandbox came on, if it was made by that.
    """

    def __init__(
        self, given: tuple[Seat, Arrived | None], sandbox: Sandbox, first: ShimWorkload,
        store: Store, state: ContainerState, marks: Marks,
    ) -> None:  # fmt: skip
        super().__init__(sandbox, first, store, state, marks)
        self.seat, self._arrived = given
        self._shutdown = Event()
        self._disks: dict[str, Disk] = {}  # of containers that are being made
        self._stands: dict[str, Stand] = {}  # likewise
        self._count = 0
        self._tasks = TaskService(self)
        self._server = Server({**self._tasks.services(), **SandboxService(self).services()})
        self.on_oom: Callable[[str], None] = self._tasks.out_of_memory
        self.on_end: Callable[[Lifetime], None] = self._tasks.ended

    # what the service needs of the core

    def use_disk(self, container_id: str, wanted: Mount) -> None:
        """Have the guest mount a container's root file system; before it is made."""
        number, self._count = self._count, self._count + 1
        self._disks[container_id] = Disk(wanted.source, number, wanted.type, tuple(wanted.options))

    def use_stand(self, container_id: str, stand: Stand) -> None:
        """Have a thread see to a container's end; before it is made."""
        self._stands[container_id] = stand

    def take_stand(self, container_id: str) -> Stand | None:
        """Take that back, if it was not used."""
        return self._stands.pop(container_id, None)

    def _see_to_its_end(self, life: Lifetime) -> None:
        stand = self.take_stand(life.state.id)
        if stand is None:
            super()._see_to_its_end(life)
        else:
            stand.follow(lambda: self._watch(life))

    def _workload(self, state: ContainerState, spec: dict[str, Any]) -> ShimWorkload:
        name = state.name.removeprefix(f"{self.seat.order.namespace}.")
        workload = ShimWorkload(name, state, spec, self._data_root)
        workload.disk = self._disks.pop(state.id, None)
        return workload

    @property
    def store(self) -> Store:
        """Where states are kept."""
        return self._store

    @property
    def sandbox(self) -> Sandbox:
        """The virtual machine."""
        return self._sandbox

    @property
    def first(self) -> Lifetime:
        """The container that the sandbox was started for."""
        return self._first

    @property
    def data_root(self) -> str:
        """Of the configuration."""
        return self._data_root

    def life(self, container_id: str) -> Lifetime:
        """A container by the id it is kept by. Raises ``NotFound``."""
        return self._life(container_id)

    def calls(self) -> dict[str, Callable[[Any, list[int]], Any]]:
        """The control calls: what a service is made of."""
        return self._control.handlers

    def delete(self, life: Lifetime) -> None:
        """Remove a container that has ended, or was never started, from guest and host."""
        self._on_delete(agent_delete(life), [])
        if life is self._first:
            self._remove_from_guest(life)
            self._sandbox.remove(life.state.id)
        else:
            remove_groups(life.state)

    def _remove_from_guest(self, life: Lifetime) -> None:
        if life.container is None or self._over.wait(0):
            return
        try:
            life.container.delete()
        except KataError:
            pass  # gone with the guest

    def shut_down(self) -> None:
        """End the sandbox and this process, once the call is answered."""
        self._shutdown.set()
        self._asked.set()
        self._over.set()

    def stop(self, seconds: float) -> None:
        """End the machine with all that runs in it; waits so long for that to be told."""
        self._over.set()
        end = time.monotonic() + seconds
        for life in list(self._lives.values()):
            life.finished.wait(max(0.0, end - time.monotonic()))

    # its life

    def run(
        self, channels: Sequence[socket], fds: Mapping[int, int], failure: KataError | None
    ) -> None:
        """Serve containerd to the end."""
        sys.stderr = _Quiet()
        set_title(self._title())
        sc.setns(self.seat.network, sc.CLONE_NEWNET)
        self._server.listen(self.seat.listener)
        if self._arrived is not None:
            arrived = self._arrived
            self._server.adopt(arrived.sock, arrived.connection, list(arrived.events))
        super().run(channels, fds, failure)
        self._shutdown.wait()
        self._sandbox.stop()
        self._clean_up()
        end = time.monotonic() + _LAST_ANSWERS_S
        while self._server.busy and time.monotonic() < end:
            time.sleep(0.001)
        self._tasks.events.flush(_LAST_EVENTS_S)

    def _title(self) -> list[str]:
        """It serves: no more the command that began it."""
        order = self.seat.order
        given = ("-namespace", order.namespace, "-id", order.id, "-address", order.address)
        return [PROGRAM, *given]

    def _clean_up(self) -> None:
        addresses.forget(self.seat.path)
        remove_groups(self._first.state)
        self._first.forget()
        try:
            leftovers.sweep(self._store)
        except (KataError, OSError) as error:
            note(f"what another shim left stays: {error}")

    def _start(self, fds: Mapping[int, int]) -> None:
        """Bring the guest up, with its first container."""
        del fds
        sandbox, life = self._sandbox, self._first
        self._control.listen(self._store.directory(life.state.id))
        sandbox.connect()
        tell_guest(sandbox)  # while containerd still prepares the first container
        if self._arrived is not None:
            self._hold()
        else:
            self._make_first()
        sandbox.follow_network(_warn, self._look_at_names)
        gc.enable()
        _thread.start_new_thread(self._settle, ())
        _thread.start_new_thread(self._listen_to_guest, ())

    def _hold(self) -> None:
        """Make the container that holds the namespaces of a pod; it is never started."""
        life = self._first
        container = Container(self._sandbox.client, life.state.id)
        holder: HolderWorkload = life.workload  # type: ignore[assignment]
        created = container.begin(holder.holder_request(self._sandbox.share_storage()))
        created.result(self._sandbox.create_timeout)
        self._made(life, container, os.getpid())

    def _make_first(self) -> None:
        """Make the container that the sandbox was started for, as soon as it is asked for."""
        sandbox, life, client = self._sandbox, self._first, self._sandbox.client
        self._asked.wait()
        if self._create is None:
            raise KataError("nobody asked for the container any more")
        request, passed = self._create
        first: ShimWorkload = life.workload  # type: ignore[assignment]
        first.disk = self._disks.pop(life.state.id, None)
        try:
            plan = sandbox.add(life.workload)
        except BaseException:
            for fd in passed:
                os.close(fd)
            raise
        self._look_at_names()
        container = Container(client, life.state.id)
        plan.stdin = 0 in request.streams
        client.cork()
        created = container.begin(plan)
        self._attach(container, plan, request, passed)
        client.uncork()
        created.result(sandbox.create_timeout)
        self._made(life, container, request.pid)

    def _listen_to_guest(self) -> None:
        """Events of the guest: out of memory."""
        stream = self._sandbox.client.stream("Events", Empty())
        try:
            while data := stream.read():
                stream.consumed(len(data))
                event = GuestEvent.decode(data)
                if event.kind == "oom":
                    self.on_oom(event.container_id)
        except KataError:
            pass  # the end of the guest is reported where its containers are waited for

    def _enter_group(self, life: Lifetime, pid: int) -> None:
        """The virtual machine was born in the sandbox's; nothing of a member runs on the host."""

    def _follow(self, life: Lifetime, pid: int, exec_id: str) -> None:
        """No process of the host stands for one of the guest."""

    def _watch(self, life: Lifetime) -> None:
        """See a container to its end, and the machine to its own if it was the last."""
        end = self._wait_for(life)
        assert life.container is not None
        if not life.container.init.drain(_DRAIN_S):
            note(f'container "{life.state.name}": nobody reads the rest of its output')
        self._write_out(life)
        life.end(end)
        life.started.set()
        life.finished.set()
        self.on_end(life)
        if self._is_over():
            self._over.set()

    def _write_out(self, life: Lifetime) -> None:
        """What a container wrote to a disk of its own is on it before its end is told."""
        if getattr(life.workload, "disk", None) is not None:
            self._remove_from_guest(life)

    def _until_end(self) -> None:
        self._over.wait()
        self._sandbox.stop()
        self._shutdown.wait()
        self._control.close()

    def _is_over(self) -> bool:
        with self._changing:
            over = self._first.exited.wait(0) and all(
                life.exited.wait(0) for life in self._lives.values()
            )
            if over:
                self._over.set()
            return over


class _Quiet:
    """Standard error for the interpreter: a log that takes nothing more ends nothing."""

    def write(self, text: str) -> int:
        """Write what can be written."""
        try:
            return os.write(2, text.encode(errors="replace"))
        except OSError:
            return len(text)

    def flush(self) -> None:
        """Nothing is held back."""


def agent_delete(life: Lifetime) -> agent_api.DeleteRequest:
    """The request to remove a container."""
    from kata.wire.agent_api import DeleteRequest

    return DeleteRequest(container_id=life.state.id)


def _warn(error: KataError) -> None:
    note(f"network: {error}")
