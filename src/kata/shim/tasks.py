"""``containerd.task.v2.Task`` on the core: what containerd asks for, turned into calls of it.

A *task* is a container with its added processes. The rules: whatever containerd repeats is answered
as the first time, or with the code that it takes for that; the start of a process is told before
its end, and its end only when its output was delivered.
"""

from __future__ import annotations

import _thread
import os

from kata.errors import (
    AlreadyExists,
    InvalidInput,
    KataError,
    NotFound,
    Unsupported,
    WrongState,
)
from kata.oci import pods
from kata.oci.honoured import drop_unknown_capabilities, refuse
from kata.oci.spec import parse_process, parse_resources
from kata.runtime import control_api
from kata.runtime.store import LOST_EXIT_CODE, PAUSED
from kata.shim import rootfs
from kata.shim.containers import new_state, read_spec, root_of
from kata.shim.events import Publisher
from kata.shim.hooks import Hooks
from kata.shim.pids import Stand
from kata.shim.processes import Process, Task
from kata.shim.stdio import Places, open_streams
from kata.wire import agent_api, quickjson
from kata.wire import containerd_events as events
from kata.wire import containerd_task as api
from kata.wire.calls import Empty
from kata.wire.containerd_types import TASK_SERVICES, timestamp
from kata.wire.record import fields, replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from kata.runtime.lifetime import Lifetime
    from kata.shim.server import Method
    from kata.shim.stdio import Stdio
    from kata.shim.supervisor import ShimSupervisor
    from kata.wire.containerd_types import Mount
    from kata.wire.protobuf import Message

    Spec = dict[str, Any]

_DRAIN_S = 10.0
_KILL, _LAST_SIGNAL = 9, 64


class TaskService:
    """The tasks of one sandbox."""

    def __init__(self, core: ShimSupervisor) -> None:
        self._core = core
        seat = core.seat
        self.events = Publisher(seat.ttrpc, seat.order.namespace)
        self._tasks: dict[str, Task] = {}
        self._changing = _thread.allocate_lock()
        self._pid = os.getpid()

    def services(self) -> dict[str, dict[str, Method]]:
        """The methods, for a server."""
        handlers: dict[str, Callable[[Any], Message]] = {
            "State": self._state, "Create": self._create, "Start": self._start,
            "Delete": self._delete, "Pids": self._pids, "Pause": self._pause,
            "Resume": self._resume, "Checkpoint": self._checkpoint, "Kill": self._kill,
            "Exec": self._exec, "ResizePty": self._resize, "CloseIO": self._close_io,
            "Update": self._update, "Wait": self._wait, "Stats": self._stats,
            "Connect": self._connect, "Shutdown": self._shutdown,
        }  # fmt: skip
        methods: dict[str, Method] = {
            name: (api.METHODS[name][0], handler) for name, handler in handlers.items()
        }
        return dict.fromkeys(TASK_SERVICES, methods)

    def _task(self, container_id: str) -> Task:
        try:
            return self._tasks[container_id]
        except KeyError:
            raise NotFound(f'no task "{container_id}" in this sandbox') from None

    def _process(self, container_id: str, exec_id: str) -> Process:
        return self._task(container_id).process(exec_id)

    def _core_call(self, method: str, request: Message, fds: list[int] | None = None) -> Any:
        return self._core.calls()[method](request, fds or [])

    # making a container

    def _create(self, request: api.CreateRequest) -> api.PidResponse:
        if request.checkpoint:
            raise Unsupported("containers cannot be restored from checkpoints")
        places = Places(request.stdin, request.stdout, request.stderr, request.terminal)
        task = Task(request.id, request.bundle, places)
        with self._changing:
            if request.id in self._tasks:
                raise AlreadyExists(f'task "{request.id}" exists')
            self._tasks[request.id] = task
        try:
            self._make(task, request)
        except BaseException:
            with self._changing:
                del self._tasks[request.id]
            raise
        self.events.publish(
            events.TaskCreate(
                container_id=request.id, bundle=request.bundle, rootfs=request.rootfs,
                io=events.TaskIO(
                    stdin=request.stdin, stdout=request.stdout, stderr=request.stderr,
                    terminal=request.terminal,
                ),
                checkpoint=request.checkpoint, pid=task.init.pid,
            )
        )  # fmt: skip
        task.made.set()
        return api.PidResponse(pid=task.init.pid)

    def _make(self, task: Task, request: api.CreateRequest) -> None:
        core = self._core
        spec = read_spec(request.bundle)
        drop_unknown_capabilities(spec["process"])
        refuse(spec)
        named = bool(core.seat.kind) and request.id == core.seat.order.id
        first = named and not core.first.created.wait(0)
        if not first:
            self._check_membership(request.id, spec)
        if not core.seat.kind:
            from kata.shim.podfiles import add_mounts

            add_mounts(spec, core.seat.bundle)
        task.rootfs = root_of(spec, request.bundle)
        disk = rootfs.for_guest(request.rootfs) if core.sandbox.takes_disks else None
        if disk is None:
            rootfs.mount_all(request.rootfs, task.rootfs)
            task.mounted = bool(request.rootfs)
        try:
            stdio = task.init.stdio = self._open(task, task.init.places)
            stand = None
            try:
                stand = None if first else Stand(core.seat.network)
                task.init.pid = stand.pid if stand is not None else self._pid
                task.hooks = Hooks(core.seat, task, spec)
                task.hooks.create()
                self._ask(task, spec, stdio, (disk, stand))
            except BaseException:
                stdio.close()
                if stand is not None:
                    stand.dismiss()
                raise
        except BaseException:
            if task.mounted:
                rootfs.unmount_all(task.rootfs)
            raise

    def _check_membership(self, container_id: str, spec: Spec) -> None:
        seat = self._core.seat
        found = pods.membership(container_id, spec.get("annotations") or {})
        if found.kind != pods.MEMBER or found.sandbox != seat.order.id:
            raise WrongState(
                f'container "{container_id}" is none of the sandbox "{seat.order.id}"',
                why="its annotations name another one" if found.sandbox else "it has no annotation",
            )

    def _open(self, task: Task, places: Places) -> Stdio:
        facts = {
            "CONTAINER_ID": task.id, "CONTAINER_NAMESPACE": self._core.seat.order.namespace,
        }  # fmt: skip
        return open_streams(places, facts, self._core.seat.host_network)

    def _ask(
        self, task: Task, spec: Spec, stdio: Stdio, given: tuple[Mount | None, Stand | None]
    ) -> None:
        """Have the core make it; with its disk, if it has one, and its pid, if it is not ours."""
        core = self._core
        disk, stand = given
        request = control_api.CreateRequest(pid=task.init.pid)
        if stand is None:
            state = core.first.state
        else:
            order = replace(core.seat.order, id=task.id)
            state = new_state(order, spec, task.bundle, sandbox=core.first.state.id)
            request.spec = quickjson.dumps(spec).encode()
            request.state = quickjson.dumps(fields(state)).encode()
            os.close(core.store.create(state))
        request.container_id = state.id
        task.id_in_core = state.id
        if disk is not None:
            core.use_disk(state.id, disk)
        if stand is not None:
            core.use_stand(state.id, stand)
        fds = stdio.release()
        request.streams = list(fds)
        try:
            self._core_call("Create", request, list(fds.values()))
            task.life = core.life(state.id)
        except BaseException:
            if stand is not None:
                core.take_stand(state.id)
                core.store.forget(state)
            raise

    # running and ending

    def _start(self, request: api.TaskRequest) -> api.PidResponse:
        task = self._task(request.id)
        if request.exec_id:
            return self._start_exec(task, task.process(request.exec_id))
        life = self._present(task)
        with task.init.telling:
            self._core_call("Start", agent_api.ContainerRequest(container_id=life.state.id))
            task.init.started = True
            self.events.publish(events.TaskStart(container_id=task.id, pid=task.init.pid))
        self._after_start(task)
        return api.PidResponse(pid=task.init.pid)

    def _after_start(self, task: Task) -> None:
        assert task.hooks is not None
        try:
            task.hooks.started()
        except KataError:
            self._core_call("Signal", agent_api.SignalRequest(
                container_id=task.id_in_core, signal=_KILL, all=True
            ))  # fmt: skip
            raise

    def _start_exec(self, task: Task, process: Process) -> api.PidResponse:
        life = self._present(task)
        container = life.present()
        self._check_wakes(task, life)
        with process.telling:
            if process.started or process.exited.wait(0):
                raise WrongState(f'process "{process.id}" was started already')
            stdio = process.stdio = self._open(task, process.places)
            stand = Stand(self._core.seat.network)
            fds = stdio.release()
            wanted = control_api.ExecRequest(process=process.spec)
            try:
                process.pid = stand.pid
                process.run = container.exec(life.workload.exec_request(wanted, fds), fds)
            except BaseException as error:
                stand.dismiss()
                stdio.close()
                process.end(error.exit_code if isinstance(error, KataError) else LOST_EXIT_CODE)
                raise
            process.started = True
            self.events.publish(
                events.TaskExecStarted(container_id=task.id, exec_id=process.id, pid=process.pid)
            )
        stand.follow(lambda: self._watch_exec(task, process))
        return api.PidResponse(pid=process.pid)

    def _watch_exec(self, task: Task, process: Process) -> None:
        assert task.life is not None
        assert task.life.container is not None
        try:
            code = process.run.wait().exit_code
        except KataError:
            code = LOST_EXIT_CODE
        process.run.drain(_DRAIN_S)
        task.life.container.forget(process.run)
        process.end(code)
        self._tell_end(task, process)

    def ended(self, life: Lifetime) -> None:
        """The first process of a container ended."""
        task = next((t for t in self._tasks.values() if t.id_in_core == life.state.id), None)
        if task is None:
            return
        task.made.wait()
        if life.result.oom_killed and not task.lacked_memory:
            self.out_of_memory(task.id_in_core)
        with task.init.telling:
            task.init.end(life.result.exit_code, life.result.finished_ns)
        self._tell_end(task, task.init)

    def _tell_end(self, task: Task, process: Process) -> None:
        self.events.publish(
            events.TaskExit(
                container_id=task.id, id=process.id, pid=process.pid, exit_status=process.exit_code,
                exited_at=timestamp(process.exited_ns),
            )
        )  # fmt: skip

    def out_of_memory(self, container_id: str) -> None:
        """The guest's kernel killed for want of memory."""
        for task in list(self._tasks.values()):
            if task.id_in_core == container_id:
                task.lacked_memory = True
                self.events.publish(events.TaskOOM(container_id=task.id))

    def _present(self, task: Task) -> Lifetime:
        if task.life is None:
            raise WrongState(f'task "{task.id}" is being made')
        return task.life

    def _delete(self, request: api.TaskRequest) -> api.DeleteResponse:
        task = self._task(request.id)
        process = task.process(request.exec_id)
        if process.started and not process.exited.wait(0):
            raise WrongState(f'process "{process.id}" runs: it cannot be deleted')
        if request.exec_id:
            if task.execs.pop(request.exec_id, None) is None:
                raise NotFound(f'process "{request.exec_id}" was deleted just now')
        else:
            self._remove(task)
        process.close()
        self.events.publish(
            events.TaskDelete(
                container_id=task.id, pid=process.pid, exit_status=process.exit_code,
                exited_at=timestamp(process.exited_ns), id=request.exec_id,
            )
        )  # fmt: skip
        return api.DeleteResponse(
            pid=process.pid, exit_status=process.exit_code, exited_at=timestamp(process.exited_ns)
        )

    def _remove(self, task: Task) -> None:
        life = self._present(task)
        self._core.delete(life)
        if task.mounted:
            rootfs.unmount_all(task.rootfs)
        with self._changing:
            if self._tasks.pop(task.id, None) is None:
                raise NotFound(f'task "{task.id}" was deleted just now')
        if task.hooks is not None:
            task.hooks.deleted()

    def _kill(self, request: api.KillRequest) -> Empty:
        task = self._task(request.id)
        process = task.process(request.exec_id)
        if request.signal > _LAST_SIGNAL:
            raise InvalidInput(f"there is no signal {request.signal}")
        if process.exited.wait(0):
            raise NotFound("process already finished")
        life = self._present(task)
        if request.exec_id and not process.started:
            raise WrongState(f'process "{process.id}" was not started')
        wanted = agent_api.SignalRequest(
            container_id=life.state.id, signal=request.signal, all=request.all,
            exec_id=process.run.exec_id if request.exec_id else "",
        )  # fmt: skip
        try:
            self._core_call("Signal", wanted)
        except (WrongState, NotFound):
            raise NotFound("process already finished") from None
        return Empty()

    def _shutdown(self, _request: api.ShutdownRequest) -> Empty:
        with self._changing:
            if not self._tasks and self._core.seat.kind:  # else ShutdownSandbox says it
                self._core.shut_down()
        return Empty()

    # more processes

    @staticmethod
    def _check_wakes(task: Task, life: Lifetime) -> None:
        """A process that is added answers only once all others may run."""
        if life.exited.wait(0):
            raise WrongState(f'container "{task.id}" has ended')
        if life.state.status == PAUSED:
            raise WrongState(f'container "{task.id}" is paused', hint="resume it first")

    def _exec(self, request: api.ExecRequest) -> Empty:
        task = self._task(request.id)
        if not request.exec_id:
            raise InvalidInput("an added process needs an id")
        life = self._present(task)
        self._check_wakes(task, life)
        given = request.spec.value if request.spec is not None else b"{}"
        spec = parse_process(given, "the process")
        drop_unknown_capabilities(spec)
        spec["terminal"] = request.terminal
        places = Places(request.stdin, request.stdout, request.stderr, request.terminal)
        process = Process(request.exec_id, places)
        process.spec = quickjson.dumps(spec).encode()
        with self._changing:
            if request.exec_id in task.execs:
                raise AlreadyExists(f'process "{request.exec_id}" exists')
            task.execs[request.exec_id] = process
        self.events.publish(
            events.TaskExecAdded(container_id=task.id, exec_id=request.exec_id)
        )
        return Empty()

    def _resize(self, request: api.ResizeRequest) -> Empty:
        task = self._task(request.id)
        process = task.process(request.exec_id)
        if request.exec_id and process.run is None:
            return Empty()  # it has no terminal yet; its container's is another one
        exec_id = process.run.exec_id if process.run is not None else ""
        wanted = agent_api.ResizeRequest(
            container_id=task.id_in_core, exec_id=exec_id, rows=request.height,
            columns=request.width,
        )  # fmt: skip
        self._core_call("Resize", wanted)
        return Empty()

    def _close_io(self, request: api.CloseIoRequest) -> Empty:
        process = self._process(request.id, request.exec_id)
        if request.stdin and process.stdio is not None:
            process.stdio.close_input()
        return Empty()

    # questions and limits

    def _state(self, request: api.TaskRequest) -> api.StateResponse:
        task = self._task(request.id)
        process = task.process(request.exec_id)
        paused = task.life is not None and task.life.state.status == PAUSED
        places = process.places
        return api.StateResponse(
            id=process.id, bundle=task.bundle, pid=process.pid,
            status=process.status(paused=paused), stdin=places.stdin, stdout=places.stdout,
            stderr=places.stderr, terminal=places.terminal, exit_status=process.exit_code,
            exited_at=timestamp(process.exited_ns), exec_id=request.exec_id,
        )  # fmt: skip

    def _wait(self, request: api.TaskRequest) -> api.WaitResponse:
        process = self._process(request.id, request.exec_id)
        process.exited.wait()
        return api.WaitResponse(
            exit_status=process.exit_code, exited_at=timestamp(process.exited_ns)
        )

    def _pids(self, request: api.ContainerRequest) -> api.PidsResponse:
        task = self._task(request.id)
        # the first one's when it has ended, too: containerd, restarted, removes tasks without pids
        known = [task.init, *(p for p in list(task.execs.values()) if p.runs())]
        return api.PidsResponse(processes=[process.info() for process in known])

    def _pause(self, request: api.ContainerRequest) -> Empty:
        task = self._task(request.id)
        self._core_call("Pause", agent_api.ContainerRequest(container_id=task.id_in_core))
        self.events.publish(events.TaskPaused(container_id=task.id))
        return Empty()

    def _resume(self, request: api.ContainerRequest) -> Empty:
        task = self._task(request.id)
        self._core_call("Resume", agent_api.ContainerRequest(container_id=task.id_in_core))
        self.events.publish(events.TaskResumed(container_id=task.id))
        return Empty()

    def _checkpoint(self, _request: api.CheckpointRequest) -> Empty:
        raise Unsupported("checkpoints are not supported")

    def _update(self, request: api.UpdateRequest) -> Empty:
        task = self._task(request.id)
        given = request.resources.value if request.resources is not None else b"{}"
        parse_resources(given, "the resources")
        self._core_call(
            "Update", control_api.UpdateRequest(container_id=task.id_in_core, resources=given)
        )
        return Empty()

    def _stats(self, request: api.ContainerRequest) -> api.StatsResponse:
        from kata.shim.stats import metrics

        task = self._task(request.id)
        if task.init.exited.wait(0):  # containerd asks for all that it has, and passes over these
            raise NotFound(f'task "{request.id}" has ended')
        found = self._core_call("Stats", agent_api.ContainerRequest(container_id=task.id_in_core))
        return api.StatsResponse(stats=metrics(found))

    def _connect(self, request: api.ContainerRequest) -> api.ConnectResponse:
        task = self._tasks.get(request.id)
        task_pid = task.init.pid if task is not None else 0
        return api.ConnectResponse(shim_pid=self._pid, task_pid=task_pid)
