"""What a shim keeps of each process that containerd knows: a task's first one, and added ones."""

from __future__ import annotations

import _thread
import time

from kata.errors import NotFound
from kata.runtime.lifetime import Event
from kata.runtime.store import LOST_EXIT_CODE
from kata.wire import containerd_task as api
from kata.wire.ttrpc import AnyMessage

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from kata.runtime.lifetime import Lifetime
    from kata.shim.hooks import Hooks
    from kata.shim.stdio import Places, Stdio

_DETAILS = "containerd.runc.v1.ProcessDetails"


class Process:
    """A process from the request for it to its deletion."""

    def __init__(self, process_id: str, places: Places) -> None:
        self.id = process_id
        self.places = places
        self.stdio: Stdio | None = None
        self.spec = b""  # OCI's process object, of an added one
        self.run: Any = None  # the core's process, of an added one
        self.pid = 0  # on the host, once it was made; it stays when the process has ended
        self.started = False
        self.exited = Event()
        self.exit_code = 0
        self.exited_ns = 0
        self.telling = _thread.allocate_lock()  # held from its start until that was told

    def end(self, code: int, at_ns: int = 0) -> None:
        """It ended."""
        self.exit_code, self.exited_ns = code, at_ns or time.time_ns()
        self.exited.set()

    def status(self, *, paused: bool) -> int:
        """In containerd's numbers."""
        if self.exited.wait(0):
            return api.STOPPED
        if paused:
            return api.PAUSED
        return api.RUNNING if self.started else api.CREATED

    def runs(self) -> bool:
        """Whether it has a pid that leads somewhere."""
        return self.pid > 0 and not self.exited.wait(0)

    def info(self) -> api.ProcessInfo:
        """As Pids tells it; with its id, if it is an added one."""
        if not self.spec:
            return api.ProcessInfo(pid=self.pid)
        details = api.ProcessDetails(exec_id=self.id).encode()
        return api.ProcessInfo(pid=self.pid, info=AnyMessage(type_url=_DETAILS, value=details))

    def close(self) -> None:
        """Let go of its streams, and of who waits for a process that never ran."""
        if not self.exited.wait(0):
            self.end(LOST_EXIT_CODE)
        if self.stdio is not None:
            self.stdio.close()


class Task:
    """A container with its processes; ``life`` is the core's, once it was made."""

    def __init__(self, container_id: str, bundle: str, places: Places) -> None:
        self.id = container_id
        self.bundle = bundle
        self.init = Process(container_id, places)
        self.execs: dict[str, Process] = {}
        self.life: Lifetime | None = None
        self.id_in_core = ""
        self.rootfs = ""
        self.mounted = False
        self.lacked_memory = False  # and that was told
        self.hooks: Hooks | None = None
        self.made = Event()  # and that was told

    def process(self, exec_id: str) -> Process:
        """A process; the first one by an empty id. Raises ``NotFound``."""
        if not exec_id:
            return self.init
        try:
            return self.execs[exec_id]
        except KeyError:
            raise NotFound(f'no process "{exec_id}" in task "{self.id}"') from None
