"""A container in a running sandbox, by way of the agent: its processes and their streams."""

from __future__ import annotations

import _thread

from kata.errors import KataError, NotFound
from kata.runtime.streams import InputPump, OutputPump
from kata.wire.agent_api import (
    STDERR,
    STDIN,
    STDOUT,
    ContainerRequest,
    CreateContainerRequest,
    DeleteRequest,
    ExecRequest,
    ListProcessesResponse,
    ProcessRequest,
    ResizeRequest,
    SignalRequest,
    StatsResponse,
    StreamRequest,
    UpdateRequest,
    WaitResponse,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from kata.runtime.rpc import Call, Client
    from kata.runtime.streamlog import StreamLog

FOREVER = -1.0
_NAMES = {STDOUT: "stdout", STDERR: "stderr"}


class Process:
    """A process of a container: its pending wait, and the pumps of its streams."""

    def __init__(self, exec_id: str) -> None:
        self.exec_id = exec_id
        self.waiting: Call | None = None
        self.outputs: list[OutputPump] = []
        self.input: InputPump | None = None

    def wait(self) -> WaitResponse:
        """Wait for its exit; raises ``AgentError`` if the guest is gone."""
        assert self.waiting is not None
        answer = self.waiting.result(FOREVER)
        assert isinstance(answer, WaitResponse)
        return answer

    def drain(self, timeout: float = FOREVER) -> bool:
        """Wait until all it wrote was delivered, for each stream up to ``timeout`` seconds.

        Gives up its standard input. Whether all was delivered.
        """
        if self.input is not None:
            self.input.finish()
        late = [pump for pump in self.outputs if not pump.wait(timeout)]
        return not late

    @property
    def output_error(self) -> str:
        """Why not all of its output could be written, after ``drain``; empty if it was."""
        return next((pump.failure for pump in self.outputs if pump.failure), "")


class Container:
    """One container; the first process has the exec id ""."""

    def __init__(self, client: Client, container_id: str) -> None:
        self.id = container_id
        self._client = client
        self._lock = _thread.allocate_lock()
        self._processes: dict[str, Process] = {}
        self._last_exec = 0
        self.init = Process("")

    def begin(self, request: CreateContainerRequest) -> Call:
        """Send create and wait; the pending answer of create.

        ``start`` may follow at once, in the same write: every wake-up of a cold guest costs
        milliseconds, and the agent handles them in order and refuses the later ones if the first
        failed.
        """
        created = self._client.start("CreateContainer", request)
        self.init.waiting = self._client.start("Wait", ProcessRequest(container_id=self.id))
        return created

    def start(self) -> Call:
        """Let the first process run; the pending answer."""
        return self._client.start("StartContainer", ContainerRequest(container_id=self.id))

    def await_start(self) -> None:
        """Have the agent look whether the first process runs, if it was in no hurry to."""
        self._client.start("AwaitStart", ContainerRequest(container_id=self.id))

    def attach(
        self,
        process: Process,
        fds: Mapping[int, int],
        *,
        log: StreamLog | None = None,
        on_output: Callable[[], None] | None = None,
        outputs: tuple[int, ...] = (STDOUT, STDERR),
    ) -> None:
        """Open the streams of a process: descriptors (owned from now on) by stream number."""
        for number in outputs:
            request = self._stream(process, number)
            self_stream = self._client.stream("ReadOutput", request)
            process.outputs.append(
                OutputPump(
                    self_stream, fds.get(number, -1), log=log, kind=_NAMES[number],
                    on_first=on_output,
                )
            )  # fmt: skip
        if STDIN in fds:
            stream = self._client.stream("WriteInput", self._stream(process, STDIN))
            process.input = InputPump(stream, fds[STDIN])

    def _stream(self, process: Process, number: int) -> StreamRequest:
        return StreamRequest(container_id=self.id, exec_id=process.exec_id, stream=number)

    def exec(self, request: ExecRequest, fds: Mapping[int, int]) -> Process:
        """Start one more process; takes over ``fds``. Raises what the agent refuses it for.

        One write carries all of it; of a process that does not start, the streams end at once.
        """
        with self._lock:
            self._last_exec += 1
            process = Process(f"exec-{self._last_exec}")
        request.container_id, request.exec_id = self.id, process.exec_id
        outputs = tuple(n for n in (STDOUT, STDERR) if n in fds)
        with self._lock:
            self._processes[process.exec_id] = process
        self._client.cork()
        try:
            started = self._client.start("Exec", request)
            process.waiting = self._client.start(
                "Wait", ProcessRequest(container_id=self.id, exec_id=process.exec_id)
            )
            self.attach(process, fds, outputs=outputs)
        finally:
            self._client.uncork()
        try:
            started.result(self._client.call_timeout)
        except KataError:
            self.forget(process)
            if process.input is not None:
                process.input.finish()
            raise
        return process

    def process(self, exec_id: str) -> Process:
        """A process by its exec id; raises ``NotFound``."""
        if not exec_id:
            return self.init
        with self._lock:
            process = self._processes.get(exec_id)
        if process is None:
            raise NotFound(f'no such process: "{exec_id}"')
        return process

    def forget(self, process: Process) -> None:
        """The end of an added process was reported: drop it."""
        with self._lock:
            self._processes.pop(process.exec_id, None)

    def signal(self, number: int, exec_id: str = "", *, everyone: bool = False) -> None:
        """Send a signal to a process, or to all of the container."""
        call = self.send_signal(number, exec_id, everyone=everyone)
        call.result(self._client.call_timeout)

    def send_signal(self, number: int, exec_id: str = "", *, everyone: bool = False) -> Call:
        """Send a signal; the pending answer. What is asked of the guest later comes after it."""
        request = SignalRequest(container_id=self.id, exec_id=exec_id, signal=number, all=everyone)
        return self._client.start("Signal", request)

    def resize(self, rows: int, columns: int, exec_id: str = "") -> None:
        """Set the size of a process's terminal."""
        request = ResizeRequest(container_id=self.id, exec_id=exec_id, rows=rows, columns=columns)
        self._client.call("Resize", request)

    def pause(self) -> None:
        """Freeze every process."""
        self._client.call("Pause", ContainerRequest(container_id=self.id))

    def resume(self) -> None:
        """Let every process go on."""
        self._client.call("Resume", ContainerRequest(container_id=self.id))

    def update(self, resources: bytes) -> None:
        """Set new limits: OCI's linux.resources (JSON)."""
        request = UpdateRequest(container_id=self.id, resources=resources)
        self._client.call("Update", request)

    def delete(self) -> None:
        """Remove what is left of it in the guest; a process that still runs is killed."""
        self._client.call("Delete", DeleteRequest(container_id=self.id, force=True))

    def stats(self) -> StatsResponse:
        """What it uses."""
        answer = self._client.call("Stats", ContainerRequest(container_id=self.id))
        assert isinstance(answer, StatsResponse)
        return answer

    def processes(self) -> ListProcessesResponse:
        """Its processes."""
        request = ContainerRequest(container_id=self.id)
        answer = self._client.call("ListProcesses", request)
        assert isinstance(answer, ListProcessesResponse)
        return answer
