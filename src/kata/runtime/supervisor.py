"""What the host process of a sandbox does once its VMM is starting, to its end.

It answers the control socket, ends containers, cleans up. Its main thread lives as long as the
sandbox: the kernel ends the VMM when that thread dies.
"""

from __future__ import annotations

import _thread
import gc
import os
import time

from kata.errors import AgentError, HypervisorError, KataError, MachineEnded, NotFound, WrongState
from kata.resources.plan import memory_limit
from kata.runtime import store as states
from kata.runtime.container import Container
from kata.runtime.control import ControlServer
from kata.runtime.control_api import ExecResponse, ExitResponse, InspectResponse, StartedResponse
from kata.runtime.lifetime import KILL, Lifetime, killed, note
from kata.runtime.streamlog import StreamLog
from kata.wire import quickjson
from kata.wire.agent_api import STDOUT, Empty, UpdateNetworkRequest, WaitResponse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket
    from collections.abc import Mapping, Sequence
    from typing import Any

    from kata.runtime import control_api
    from kata.runtime.rpc import Call
    from kata.runtime.run_workload import RunWorkload
    from kata.runtime.sandbox import Sandbox
    from kata.runtime.store import ContainerState, Store
    from kata.runtime.timing import Marks
    from kata.wire import agent_api
    from kata.wire.protobuf import Message

_LAST_ANSWERS_S = 5.0
_FIRST_OUTPUT_S = 0.1  # longer than most programs take to it, also under emulation


class Supervisor:
    """One sandbox and its containers, from its start to its end.

    What is here answers control calls and ends containers; how the first container comes and
    when the sandbox ends is for ``RunSupervisor`` and ``PodSupervisor``.
    """

    def __init__(
        self, sandbox: Sandbox, first: Any, store: Store, state: ContainerState, marks: Marks
    ) -> None:
        self._store = store
        self._marks = marks
        self._sandbox = sandbox
        self._first = Lifetime(first, state, store)
        self._lives = {state.id: self._first}
        self._has_written = False  # the first process, as far as is known
        self._promising = _thread.allocate_lock()  # how much memory the containers may use
        self._control = ControlServer({
            "Started": self._on_started, "HasWritten": self._on_has_written,
            "Wait": self._on_wait, "Signal": self._on_signal,
            "Resize": self._on_resize, "Exec": self._on_exec, "Stop": self._on_stop,
            "Pause": self._on_pause, "Resume": self._on_resume, "Stats": self._on_stats,
            "Processes": self._on_processes, "Inspect": self._on_inspect,
            "Update": self._on_update,
        })  # fmt: skip

    def run(
        self, channels: Sequence[socket], fds: Mapping[int, int], failure: KataError | None
    ) -> None:
        """Serve the sandbox, which was launched (or ``failure``), to its end.

        ``channels`` are connections of the command line.
        """
        for channel in channels:
            self._serve(channel)
        try:
            if failure is not None:
                raise failure
            self._start(fds)
        except KataError as error:
            self._give_up(error)
        except Exception as error:
            from traceback import print_exc

            print_exc()
            self._give_up(KataError(f"internal error in the supervisor: {error!r}"))
        else:
            try:
                self._until_end()
            finally:
                self._sandbox.stop()
        self._control.drain(_LAST_ANSWERS_S)

    def _serve(self, channel: socket) -> None:
        self._control.serve(channel)

    def _start(self, fds: Mapping[int, int]) -> None:
        raise NotImplementedError

    def _until_end(self) -> None:
        raise NotImplementedError

    def _give_up(self, error: KataError) -> None:
        """The first container did not start: nothing of it stays."""
        error = self._sandbox.explain(error)
        self._sandbox.stop()
        self._control.close()
        self._first.fail(error)

    def _life(self, container_id: str) -> Lifetime:
        """A container by its id; the first one by an empty id. Raises ``NotFound``."""
        if not container_id:
            return self._first
        try:
            return self._lives[container_id]
        except KeyError:
            raise NotFound(f'no container "{container_id}" in this sandbox') from None

    def _wait_for(self, life: Lifetime) -> WaitResponse | KataError:
        """Wait for the first process of a container."""
        assert life.container is not None
        try:
            return life.container.init.wait()
        except KataError as error:
            return self._sandbox.explain(error)

    # What follows answers control calls, each in a thread of its own.

    def _on_started(self, _request: Message, _fds: list[int]) -> StartedResponse:
        self._first.started.wait()
        if self._first.failure is not None:
            raise self._first.failure
        return StartedResponse(sandbox=quickjson.dumps(self._sandbox.describe()).encode())

    def _on_has_written(self, _request: Message, _fds: list[int]) -> Empty:
        if not self._has_written:
            raise WrongState("the process has written nothing yet")
        return Empty()

    def _on_wait(self, request: agent_api.ProcessRequest, _fds: list[int]) -> ExitResponse:
        life = self._life(request.container_id)
        if not request.exec_id:
            life.finished.wait()
            if life.failure is not None:
                raise life.failure
            return life.result
        container = life.present()
        process = container.process(request.exec_id)
        try:
            end = process.wait()
            result = ExitResponse(exit_code=end.exit_code, signal=end.signal)
        except AgentError as error:
            result = killed(str(self._sandbox.explain(error)))
        process.drain()
        container.forget(process)
        result.finished_ns, result.output_error = time.time_ns(), process.output_error
        return result

    def _on_signal(self, request: agent_api.SignalRequest, _fds: list[int]) -> Empty:
        """As with kill(2), it is done when the signal is on its way.

        If it is to the first process, which is there; of others the guest has to say that.
        """
        container = self._life(request.container_id).present()
        call = container.send_signal(request.signal, request.exec_id, everyone=request.all)
        if request.exec_id or request.all:
            self._await_signal(call, kill=request.signal == KILL and not request.exec_id)
        else:
            _thread.start_new_thread(self._mind_signal, (call, request.signal == KILL))
        return Empty()

    def _await_signal(self, call: Call, *, kill: bool) -> None:
        try:
            call.result(self._sandbox.client.call_timeout)
        except AgentError:
            if not kill:
                raise
            self._sandbox.kill()  # a guest that does not answer does not escape being killed

    def _mind_signal(self, call: Call, kill: bool) -> None:  # noqa: FBT001 (of a thread)
        try:
            self._await_signal(call, kill=kill)
        except KataError as error:
            note(f"signal: {error}")  # it has ended meanwhile

    def _on_resize(self, request: agent_api.ResizeRequest, _fds: list[int]) -> Empty:
        container = self._life(request.container_id).present()
        container.resize(request.rows, request.columns, request.exec_id)
        return Empty()

    def _on_exec(self, request: control_api.ExecRequest, fds: list[int]) -> ExecResponse:
        passed = dict(zip(request.streams, fds, strict=False))
        try:
            life = self._life(request.container_id)
            container = life.present()
            order = life.workload.exec_request(request, passed)
        except KataError:
            for fd in fds:
                os.close(fd)
            raise
        try:
            process = container.exec(order, passed)
        except AgentError as error:
            raise self._not_added(error) from None
        if request.pid:
            self._follow(life, request.pid, process.exec_id)
        elif STDOUT not in passed:
            _thread.start_new_thread(self._reap, (container, process.exec_id))
        return ExecResponse(exec_id=process.exec_id)

    def _not_added(self, error: AgentError) -> KataError:
        """Why a process was not: the machine that ended beneath it, if it did."""
        why = self._sandbox.explain(error)
        if isinstance(why, HypervisorError):
            return MachineEnded(str(why), hint=why.hint)
        return why

    def _follow(self, life: Lifetime, pid: int, exec_id: str) -> None:
        """Kill a process when its stand-in on the host was killed."""
        raise NotImplementedError

    @staticmethod
    def _reap(container: Container, exec_id: str) -> None:
        """Forget a detached process when it ends: nobody else asks for it."""
        process = container.process(exec_id)
        try:
            process.wait()
        except KataError:
            pass
        container.forget(process)

    def _on_stop(self, request: control_api.StopRequest, _fds: list[int]) -> ExitResponse:
        life = self._life(request.container_id)
        container = life.running()
        if life.state.status == states.PAUSED:
            self._resume(life)
        try:  # no answer is waited for: a guest that gives none is killed all the same
            if request.timeout > 0:
                container.send_signal(request.signal or life.state.stop_signal)
            if request.timeout <= 0 or not life.exited.wait(request.timeout):
                container.send_signal(KILL)
        except AgentError:
            self._sandbox.kill()
        except KataError:
            pass  # it ended between two steps
        if not life.exited.wait(_LAST_ANSWERS_S * 2):
            self._sandbox.kill()
            life.exited.wait(_LAST_ANSWERS_S)
        life.finished.wait(_LAST_ANSWERS_S)
        return life.result

    def _on_pause(self, request: agent_api.ContainerRequest, _fds: list[int]) -> Empty:
        life = self._life(request.container_id)
        container = life.present()
        if life.state.status not in (states.RUNNING, states.CREATED):
            raise WrongState("container not running", why=f"it is {life.state.status}")
        container.pause()
        life.change(status=states.PAUSED)
        return Empty()

    def _on_resume(self, request: agent_api.ContainerRequest, _fds: list[int]) -> Empty:
        life = self._life(request.container_id)
        life.present()
        if life.state.status != states.PAUSED:
            raise WrongState("container not paused")
        self._resume(life)
        return Empty()

    @staticmethod
    def _resume(life: Lifetime) -> None:
        life.present().resume()
        life.change(status=states.RUNNING if life.started.wait(0) else states.CREATED)

    def _on_stats(
        self, request: agent_api.ContainerRequest, _fds: list[int]
    ) -> agent_api.StatsResponse:
        return self._life(request.container_id).present().stats()

    def _on_processes(
        self, request: agent_api.ContainerRequest, _fds: list[int]
    ) -> agent_api.ListProcessesResponse:
        return self._life(request.container_id).present().processes()

    def _on_update(self, request: control_api.UpdateRequest, _fds: list[int]) -> Empty:
        from kata.runtime.update import share

        life = self._life(request.container_id)
        container = life.present()
        used = dict(container.stats().files).get("memory.current", "0").strip()
        resources = quickjson.loads(request.resources)
        check_memory(resources, int(used or 0))
        with self._promising:
            if memory_limit(resources):
                self._make_room(life, memory_limit(resources))
            try:
                guests = share(life, resources, self._sandbox, first=life is self._first)
            finally:
                self._note_traces()
            container.update(quickjson.dumps(guests).encode())
            if "limit" in (resources.get("memory") or {}):
                life.memory_limit = memory_limit(resources)
        return Empty()

    def _note_traces(self) -> None:
        """A change may have brought groups of further kinds, which go with the container."""
        known = self._first.state.traces
        traces = tuple(dict.fromkeys((*known, *self._sandbox.traces)))
        if known and traces != known:
            self._first.change(traces=traces)

    def _make_room(self, wanting: Lifetime, limit: int) -> None:
        """Have memory for ``limit`` beside the limits of the others. Called with ``_promising``."""
        from kata.runtime.growth import needed_mib

        others = [
            life.memory_limit for life in list(self._lives.values())
            if life is not wanting and not life.exited.wait(0)
        ]  # fmt: skip
        self._sandbox.grow(needed_mib([limit, *others]))

    def _on_inspect(self, _request: Message, _fds: list[int]) -> InspectResponse:
        self._first.present()
        return InspectResponse(sandbox=quickjson.dumps(self._sandbox.describe()).encode())


def check_memory(resources: dict[str, Any], used: int) -> None:
    """Refuse a memory limit that would kill the container. Raises ``WrongState``."""
    limit = (resources.get("memory") or {}).get("limit") or 0
    if 0 < limit < used:
        raise WrongState(
            f"unable to set memory limit to {limit} (current usage: {used}, peak usage: {used})"
        )


class RunSupervisor(Supervisor):
    """The supervisor of ``kata run``: one container, which starts by itself and ends it all."""

    def __init__(
        self, sandbox: Sandbox, first: RunWorkload, store: Store, state: ContainerState,
        marks: Marks,
    ) -> None:  # fmt: skip
        super().__init__(sandbox, first, store, state, marks)
        self._workload = first

    def _first_output(self) -> None:
        """Called before it is passed on: who sees it may send a signal, which must arrive."""
        self._has_written = True
        self._marks.once("output")

    def _start(self, fds: Mapping[int, int]) -> None:
        """One write carries everything: each wake-up of a cold guest costs milliseconds."""
        life, sandbox = self._first, self._sandbox
        plan = None if self._workload.deferred else sandbox.prepare()
        unhurried = plan is not None and plan.program is not None and bool(fds)
        if plan is not None and plan.program is not None:
            plan.program.unhurried = unhurried  # nobody is attached: it is waited for that it runs
        directory = self._store.directory(life.state.id)
        self._control.listen(directory)
        if self._workload.logged:
            life.log = StreamLog(f"{directory}/log")
        client = sandbox.connect()
        configured = told = None
        if plan is None:  # the guest runs: it has something to do while its disks are changed
            configured = sandbox.configure()
            told = client.start("UpdateNetwork", UpdateNetworkRequest())
            plan = sandbox.add(self._workload)
            self._marks.mark("files")
        container = Container(client, life.state.id)
        client.cork()
        configured = configured or sandbox.configure()
        created, started = container.begin(plan), container.start()
        outputs = tuple(n for n, on in ((1, plan.stdout), (2, plan.stderr)) if on)
        container.attach(
            container.init, fds, log=life.log, outputs=outputs,
            on_output=self._first_output,
        )  # fmt: skip
        client.uncork()
        sandbox.wait_ready()
        sandbox.check_guest(configured)
        if told is not None:
            told.result(sandbox.create_timeout)
        self._marks.mark("agent")
        if unhurried and not created.ends_within(_FIRST_OUTPUT_S):
            container.await_start()
        created.result(sandbox.create_timeout)
        started.result(sandbox.create_timeout)
        self._marks.mark("started")
        life.container = container
        life.change(
            status=states.RUNNING, pid=os.getpid(), vmm_pid=sandbox.vmm_pid,
            started_ns=time.time_ns(), template=sandbox.template, accelerator=sandbox.accelerator,
        )  # fmt: skip
        life.created.set()
        life.started.set()
        gc.enable()
        self._store.save_spec(life.state.id, self._workload.specification())

    def _until_end(self) -> None:
        life = self._first
        end = self._until_exit(life)
        self._marks.mark("exited")
        life.end(end)
        assert life.container is not None
        life.container.init.drain()
        self._marks.mark("drained")
        self._sandbox.stop()
        self._control.close()
        life.close_log()
        life.result.output_error = life.container.init.output_error
        life.result.log_error = life.log.failure if life.log is not None else ""
        if life.state.auto_remove:
            life.forget()
        elif life.result.log_error and not life.state.error:
            life.change(error=f"the log is not complete: {life.result.log_error}")
        self._marks.mark("stopped")
        life.result.timing = quickjson.dumps(self._marks.list).encode()
        life.finished.set()

    def _until_exit(self, life: Lifetime) -> WaitResponse | KataError:
        """Wait for the first process; meanwhile set the clock once more, now that it is quick."""
        assert life.container is not None
        waiting = life.container.init.waiting
        assert waiting is not None
        try:
            if not waiting.ends_within(0.2):
                self._sandbox.correct_clock()
        except KataError as error:
            return self._sandbox.explain(error)
        return self._wait_for(life)
