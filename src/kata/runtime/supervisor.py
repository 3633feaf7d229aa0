"""What the host process of a sandbox does once its VMM is starting, to its end.

It starts the container, answers the control socket, cleans up. Its main thread lives as long as
the sandbox: the kernel ends the VMM when that thread dies.
"""

from __future__ import annotations

import _signal
import _thread
import gc
import os
import time

from kata.errors import AgentError, HypervisorError, KataError, WrongState
from kata.runtime import store as states
from kata.runtime.container import Container
from kata.runtime.control import ControlServer
from kata.runtime.control_api import (
    ExecResponse,
    ExitResponse,
    InspectResponse,
    StartedResponse,
)
from kata.runtime.streamlog import StreamLog
from kata.wire import quickjson
from kata.wire.agent_api import STDOUT, Empty, WaitResponse
from kata.wire.record import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket
    from collections.abc import Mapping

    from kata.runtime import control_api
    from kata.runtime.request import RunRequest
    from kata.runtime.sandbox import Sandbox
    from kata.runtime.store import ContainerState, Store
    from kata.runtime.timing import Marks
    from kata.wire import agent_api
    from kata.wire.protobuf import Message

_KILL = int(_signal.SIGKILL)
_LAST_ANSWERS_S = 5.0


class Event:
    """Something that happens once, and that any number of threads can wait for."""

    def __init__(self) -> None:
        self._lock = _thread.allocate_lock()
        self._lock.acquire()

    def set(self) -> None:
        """It happened."""
        if self._lock.locked():
            try:
                self._lock.release()
            except RuntimeError:
                pass  # another thread was first

    def wait(self, timeout: float = -1) -> bool:
        """Wait for it; whether it happened in time."""
        if not self._lock.acquire(timeout=timeout):
            return False
        self._lock.release()
        return True


class Supervisor:
    """One sandbox with one container, from its start to its end."""

    def __init__(
        self, sandbox: Sandbox, request: RunRequest, store: Store, state: ContainerState,
        marks: Marks,
    ) -> None:  # fmt: skip
        self._request = request
        self._store = store
        self._state = state
        self._marks = marks
        self._sandbox = sandbox
        self._container: Container | None = None
        self._log: StreamLog | None = None
        self._started, self._exited, self._finished = Event(), Event(), Event()
        self._failure: KataError | None = None
        self._result = ExitResponse()
        self._control = ControlServer({
            "Started": self._on_started, "Wait": self._on_wait, "Signal": self._on_signal,
            "Resize": self._on_resize, "Exec": self._on_exec, "Stop": self._on_stop,
            "Pause": self._on_pause, "Resume": self._on_resume, "Stats": self._on_stats,
            "Processes": self._on_processes, "Inspect": self._on_inspect,
        })  # fmt: skip

    def run(self, channel: socket, fds: Mapping[int, int], failure: KataError | None) -> None:
        """Serve the sandbox, which was launched (or ``failure``), to its end.

        ``channel`` is the command line's connection.
        """
        self._control.serve(channel)
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
            self._finish(self._until_exit())
        self._control.drain(_LAST_ANSWERS_S)

    def _give_up(self, error: KataError) -> None:
        """The container did not start: nothing of it stays."""
        self._failure = self._sandbox.explain(error)
        self._sandbox.stop()
        if self._log is not None:
            self._log.close()
        self._control.close()
        self._store.forget(self._state)
        for event in (self._started, self._exited, self._finished):
            event.set()

    def _start(self, fds: Mapping[int, int]) -> None:
        request, sandbox = self._request, self._sandbox
        plan = sandbox.prepare()
        self._control.listen(self._store.directory(self._state.id))
        if request.logged:
            self._log = StreamLog(f"{self._store.directory(self._state.id)}/log")
        client = sandbox.connect()
        container = Container(client, self._state.id)
        client.cork()
        configured = sandbox.configure()
        created, started = container.begin(plan)
        outputs = tuple(n for n, on in ((1, plan.stdout), (2, plan.stderr)) if on)
        container.attach(
            container.init, fds, log=self._log, outputs=outputs,
            on_output=lambda: self._marks.once("output"),
        )  # fmt: skip
        client.uncork()
        sandbox.wait_ready()
        sandbox.check_guest(configured)
        self._marks.mark("agent")
        created.result(sandbox.create_timeout)
        started.result(sandbox.create_timeout)
        self._marks.mark("started")
        self._container = container
        self._change(
            status=states.RUNNING, pid=os.getpid(), vmm_pid=sandbox.vmm_pid,
            started_ns=time.time_ns(), template=sandbox.template, accelerator=sandbox.accelerator,
        )  # fmt: skip
        self._started.set()
        gc.enable()
        self._store.save_spec(self._state.id, sandbox.specification())

    def _change(self, **changes: object) -> None:
        self._state = replace(self._state, **changes)
        try:
            self._store.save(self._state)
        except OSError as error:
            os.write(2, f"cannot save the state: {error}\n".encode())

    def _until_exit(self) -> WaitResponse | KataError:
        """Wait for the first process; meanwhile set the clock once more, now that it is quick."""
        assert self._container is not None
        process = self._container.init
        assert process.waiting is not None
        try:
            if not process.waiting.ends_within(0.2):
                self._sandbox.correct_clock()
                self._sandbox.settle()
            return process.wait()
        except KataError as error:
            return self._sandbox.explain(error)

    def _finish(self, end: WaitResponse | KataError) -> None:
        assert self._container is not None
        self._marks.mark("exited")
        now = time.time_ns()
        if isinstance(end, KataError):
            self._result = ExitResponse(
                exit_code=states.LOST_EXIT_CODE, signal=_KILL, finished_ns=now,
                error=_describe(end),
            )  # fmt: skip
        else:
            self._result = ExitResponse(
                exit_code=end.exit_code, signal=end.signal, oom_killed=end.oom_killed,
                finished_ns=end.exited_at_ns or now,
            )  # fmt: skip
        self._change(
            status=states.STOPPED, exit_code=self._result.exit_code, pid=0, vmm_pid=0,
            oom_killed=self._result.oom_killed, finished_ns=now, error=self._result.error,
        )  # fmt: skip
        self._exited.set()
        self._container.init.drain()
        self._marks.mark("drained")
        self._sandbox.stop()
        self._control.close()
        if self._log is not None:
            self._log.close()
        if self._state.auto_remove:
            self._store.forget(self._state)
        self._marks.mark("stopped")
        self._result.timing = quickjson.dumps(self._marks.list).encode()
        self._finished.set()

    def _running(self) -> Container:
        """The container once it has started; raises what kept it from that, or ``WrongState``."""
        self._started.wait()
        if self._failure is not None:
            raise self._failure
        if self._container is None or self._exited.wait(0):
            raise WrongState(f'container "{self._state.name}" is not running')
        return self._container

    # What follows answers control calls, each in a thread of its own.

    def _on_started(self, _request: Message, _fds: list[int]) -> StartedResponse:
        self._started.wait()
        if self._failure is not None:
            raise self._failure
        return StartedResponse(sandbox=quickjson.dumps(self._sandbox.describe()).encode())

    def _on_wait(self, request: agent_api.ProcessRequest, _fds: list[int]) -> ExitResponse:
        if not request.exec_id:
            self._finished.wait()
            if self._failure is not None:
                raise self._failure
            return self._result
        container = self._running()
        process = container.process(request.exec_id)
        end = process.wait()
        process.drain()
        container.forget(process)
        return ExitResponse(exit_code=end.exit_code, signal=end.signal, finished_ns=time.time_ns())

    def _on_signal(self, request: agent_api.SignalRequest, _fds: list[int]) -> Empty:
        self._running().signal(request.signal, request.exec_id, everyone=request.all)
        return Empty()

    def _on_resize(self, request: agent_api.ResizeRequest, _fds: list[int]) -> Empty:
        self._running().resize(request.rows, request.columns, request.exec_id)
        return Empty()

    def _on_exec(self, request: control_api.ExecRequest, fds: list[int]) -> ExecResponse:
        passed = dict(zip(request.streams, fds, strict=False))
        try:
            container = self._running()
            order = self._sandbox.exec_request(request, passed)
        except KataError:
            for fd in fds:
                os.close(fd)
            raise
        process = container.exec(order, passed)
        if STDOUT not in passed:
            _thread.start_new_thread(self._reap, (container, process.exec_id))
        return ExecResponse(exec_id=process.exec_id)

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
        container = self._running()
        if self._state.status == states.PAUSED:
            self._on_resume(Empty(), [])
        try:
            if request.timeout > 0:
                container.signal(request.signal or self._state.stop_signal)
            if request.timeout <= 0 or not self._exited.wait(request.timeout):
                container.signal(_KILL)
        except AgentError:
            self._sandbox.kill()
        except KataError:
            pass  # it ended between two steps
        if not self._exited.wait(_LAST_ANSWERS_S * 2):
            self._sandbox.kill()
            self._exited.wait(_LAST_ANSWERS_S)
        self._finished.wait(_LAST_ANSWERS_S)
        return self._result

    def _on_pause(self, _request: Message, _fds: list[int]) -> Empty:
        self._running().pause()
        self._change(status=states.PAUSED)
        return Empty()

    def _on_resume(self, _request: Message, _fds: list[int]) -> Empty:
        self._running().resume()
        self._change(status=states.RUNNING)
        return Empty()

    def _on_stats(self, _request: Message, _fds: list[int]) -> agent_api.StatsResponse:
        return self._running().stats()

    def _on_processes(
        self, _request: Message, _fds: list[int]
    ) -> agent_api.ListProcessesResponse:
        return self._running().processes()

    def _on_inspect(self, _request: Message, _fds: list[int]) -> InspectResponse:
        self._running()
        return InspectResponse(sandbox=quickjson.dumps(self._sandbox.describe()).encode())


def _describe(error: KataError) -> str:
    console = error.console if isinstance(error, HypervisorError) else ""
    tail = "".join(f"\n  | {line}" for line in console.splitlines()[-20:])
    return f"{error}{tail}"
