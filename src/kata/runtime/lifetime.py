"""One container's life on the host: its state on disk, what others wait for, how it ended.

The rule: whatever happens to a container is written to its state first and announced then, so
that who was told of it finds it on disk.
"""

from __future__ import annotations

import _signal
import _thread
import os
import time

from kata.errors import HypervisorError, KataError, WrongState
from kata.resources.plan import memory_limit
from kata.runtime import store as states
from kata.runtime.control_api import ExitResponse
from kata.wire.record import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kata.runtime.container import Container
    from kata.runtime.store import ContainerState, Store
    from kata.runtime.streamlog import StreamLog
    from kata.runtime.workload import Workload
    from kata.wire.agent_api import WaitResponse

KILL = int(_signal.SIGKILL)


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


class Lifetime:
    """A container from the request for it to its end."""

    def __init__(self, workload: Workload, state: ContainerState, store: Store) -> None:
        self.workload = workload
        self.state = state
        self._store = store
        self._keeping = _thread.allocate_lock()
        self._forgotten = False
        self.container: Container | None = None
        self.log: StreamLog | None = None
        self.memory_limit = memory_limit(workload.resources)  # bytes, 0: none
        self.resources = workload.resources  # as the last update left them
        self.execs: dict[str, int] = {}  # stand-ins of added processes, by exec id
        self.created, self.started = Event(), Event()
        self.exited, self.finished = Event(), Event()
        self.failure: KataError | None = None
        self.result = ExitResponse()

    def change(self, **changes: object) -> None:
        """Note something in the state on disk, unless that is gone already."""
        with self._keeping:
            self.state = replace(self.state, **changes)
            if self._forgotten:
                return
            try:
                self._store.save(self.state)
            except OSError as error:
                note(f"cannot save the state: {error}")

    def forget(self) -> None:
        """Remove the state on disk; whoever still notes something does not bring it back."""
        with self._keeping:
            self._forgotten = True
            self._store.forget(self.state)

    def fail(self, error: KataError) -> None:
        """It did not start: nothing of it stays."""
        self.failure = error
        self.close_log()
        self.forget()
        for event in (self.created, self.started, self.exited, self.finished):
            event.set()

    def end(self, how: WaitResponse | KataError) -> None:
        """Its first process ended, or all was lost with the virtual machine."""
        now = time.time_ns()
        if isinstance(how, KataError):
            self.result = killed(describe(how))
            self.result.finished_ns = now
        else:
            self.result = ExitResponse(
                exit_code=how.exit_code, signal=how.signal, oom_killed=how.oom_killed,
                finished_ns=how.exited_at_ns or now,
            )  # fmt: skip
        self.change(
            status=states.STOPPED, exit_code=self.result.exit_code, pid=0, vmm_pid=0,
            oom_killed=self.result.oom_killed, finished_ns=now, error=self.result.error,
        )  # fmt: skip
        self.exited.set()

    def present(self) -> Container:
        """The container, made and not ended; raises what kept it from that, or ``WrongState``."""
        self.created.wait()
        if self.failure is not None:
            raise self.failure
        if self.container is None or self.exited.wait(0):
            raise WrongState(f'container "{self.state.name}" is not running')
        return self.container

    def running(self) -> Container:
        """The container once it has started; raises as ``present`` does."""
        self.started.wait()
        return self.present()

    def close_log(self) -> None:
        """No more output is kept."""
        if self.log is not None:
            self.log.close()


def killed(error: str) -> ExitResponse:
    """How a process ended whose virtual machine is gone, and why that is."""
    return ExitResponse(exit_code=states.LOST_EXIT_CODE, signal=KILL, error=error)


def note(text: str) -> None:
    """A line in the supervisor's log; where that cannot be written nothing is lost but the line."""
    try:
        os.write(2, f"{text}\n".encode())
    except OSError:
        pass


def describe(error: KataError) -> str:
    """An error in words, with the end of the guest's console if that is known."""
    console = error.console if isinstance(error, HypervisorError) else ""
    tail = "".join(f"\n  | {line}" for line in console.splitlines()[-20:])
    return f"{error}{tail}"
