"""A container from the agent's side: its processes, control group, storages and files."""

from __future__ import annotations

import os
from select import EPOLLPRI

from kata.errors import AlreadyExists, KataError, NotFound, WrongState
from kata.guest.process import Outcome
from kata.linux.namespaces import KINDS
from kata.wire.agent_api import Empty

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from kata.guest.loop import Loop
    from kata.guest.process import Process
    from kata.guest.users import Users
    from kata.linux.cgroup2 import Group

_KEPT = 64  # exec ids remembered; the oldest that ended are forgotten first, once they delivered
_MOST = 512  # and from here on whether they did or not
_SIGKILL = 9


class Container:
    """One container; the first process is in ``init`` as soon as it was forked."""

    def __init__(self, loop: Loop, container_id: str, group: Group, kinds: dict[str, str]) -> None:
        self.id, self.group = container_id, group
        self.kinds = kinds  # its namespaces: kind -> path it was joined by, "" for its own
        self.storages: list[str] = []
        self.directory = ""  # of its files
        self.nodes = ""  # where its device nodes are mounted, if it cannot make any
        self.users: Users | None = None  # its user namespace
        self.held: tuple[int, ...] = ()  # descriptors closed at the end
        self._loop = loop
        self._init: Process | None = None
        self._execs: dict[str, Process] = {}
        self._watched: set[int] = set()  # files of the group whose changes we are told of

    @property
    def init(self) -> Process:
        """The first process."""
        assert self._init is not None
        return self._init

    @init.setter
    def init(self, process: Process) -> None:
        """It was forked: the container has begun."""
        self._init = process
        process.oom_killed = self.was_oom_killed
        if self.kinds.get("pid") != "":  # the kernel kills the rest only in a pid namespace
            process.exited.then(lambda _: self.group.kill())

    @property
    def running(self) -> bool:
        """Whether the program was started and has not ended."""
        started = self.init.started.value
        return (
            started is not None and not isinstance(started, KataError)
            and self.init.exited.value is None
        )  # fmt: skip

    def joined_kinds(self) -> tuple[str, ...]:
        """The kinds that a further process enters by setns; pid is entered by its fork."""
        return tuple(kind for kind in KINDS if kind in self.kinds and kind != "pid")

    def process(self, exec_id: str) -> Process:
        """A process by its exec id. Raises ``NotFound``."""
        if not exec_id:
            return self.init
        try:
            return self._execs[exec_id]
        except KeyError:
            raise NotFound(f'no process "{exec_id}" in container "{self.id}"') from None

    def check_exec(self, exec_id: str) -> None:
        """May a process of this exec id be added? Raises what speaks against it."""
        ready = self.init.ready.value  # its namespaces are there before its program runs
        if ready is None or isinstance(ready, KataError) or self.init.exited.value is not None:
            raise WrongState(f'container "{self.id}" is not running')
        old = self._execs.get(exec_id)
        if old is not None and old.exited.value is None:
            raise AlreadyExists(f'process "{exec_id}" in container "{self.id}" exists')

    def add(self, process: Process) -> None:
        """Add an exec'd process."""
        old = self._execs.pop(process.exec_id, None)
        if old is not None:
            old.close()
        self._execs[process.exec_id] = process
        process.oom_killed = self.was_oom_killed
        if len(self._execs) > _KEPT:
            self._forget_ended(any_=len(self._execs) > _MOST)

    def _forget_ended(self, *, any_: bool) -> None:
        for exec_id, process in list(self._execs.items()):
            if process.exited.value is not None and (any_ or process.delivered):
                process.close()
                del self._execs[exec_id]
                return

    def signal_all(self, number: int) -> None:
        """Send a signal to every process of the container."""
        if number == _SIGKILL:
            self.group.kill()
            return
        for pid in self.group.processes():
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                pass

    def exec_ids(self) -> dict[int, str]:
        """Exec ids by process id."""
        return {p.pid: p.exec_id for p in self._execs.values() if p.pid and p.exited.value is None}

    def was_oom_killed(self) -> bool:
        """Whether the kernel killed any of its processes for want of memory."""
        return self.group.event("memory.events", "oom_kill") > 0

    def watch_oom(self, callback: Callable[[str], None]) -> None:
        """Call back with the id whenever the kernel killed a process for want of memory, or has."""
        seen = 0

        def changed(_text: str) -> None:
            nonlocal seen
            kills = self.group.event("memory.events", "oom_kill")
            if kills > seen:
                seen = kills
                callback(self.id)

        self._watch("memory.events", changed)
        changed("")

    def freeze(self, frozen: bool) -> Outcome:  # noqa: FBT001 - a state, not an option
        """Stop or continue every process; the outcome is there when all have."""
        outcome = Outcome()
        wanted = f"frozen {int(frozen)}"

        def changed(text: str) -> None:
            if wanted in text:
                self._forget(watch)
                outcome.settle(Empty())

        watch = self._watch("cgroup.events", changed)
        self.group.freeze(frozen)
        changed(self.group.read("cgroup.events"))
        return outcome

    def _watch(self, name: str, callback: Callable[[str], None]) -> int:
        """Call back with the text of a file of the group when it changed; the descriptor."""
        try:
            fd = os.open(f"{self.group.path}/{name}", os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return -1
        os.read(fd, 4096)

        def changed(_events: int) -> None:
            if fd in self._watched:
                os.lseek(fd, 0, os.SEEK_SET)
                callback(os.read(fd, 4096).decode())  # read: else no further change is told

        self._watched.add(fd)
        self._loop.watch(fd, EPOLLPRI, changed)
        return fd

    def _forget(self, fd: int) -> None:
        if fd in self._watched:
            self._watched.remove(fd)
            self._loop.forget(fd)
            os.close(fd)

    def close(self) -> None:
        """Give up every descriptor."""
        for fd in list(self._watched):
            self._forget(fd)
        for fd in self.held:
            os.close(fd)
        self.held = ()
        for process in (*self._execs.values(), *((self._init,) if self._init else ())):
            process.close()
