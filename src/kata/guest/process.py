"""One process of a container, from the agent's side: its birth, its streams, its end."""

from __future__ import annotations

import os
import time
from select import EPOLLIN

from kata.errors import GuestError, KataError, NotFound, WrongState
from kata.guest import pipes as wires
from kata.guest import scheduling
from kata.guest.streams import Input, Output
from kata.linux import syscalls, tty
from kata.wire.agent_api import STDERR, STDIN, STDOUT, Empty, PidResponse, WaitResponse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from kata.guest.loop import Loop
    from kata.guest.streams import Stream
    from kata.wire.protobuf import Message

    Result = Message | KataError


class Outcome:
    """A result that is there now or later: a message or an error, delivered to whoever asked."""

    def __init__(self) -> None:
        self.value: Result | None = None
        self._callbacks: list[Callable[[Result], None]] = []

    def then(self, callback: Callable[[Result], None]) -> None:
        """Call back with the result, at once if it is there."""
        if self.value is not None:
            callback(self.value)
        else:
            self._callbacks.append(callback)

    def settle(self, value: Result) -> None:
        """The result is known; only the first one counts."""
        if self.value is None:
            self.value = value
            callbacks, self._callbacks = self._callbacks, []
            for callback in callbacks:
                callback(value)


class Process:
    """A process, forked (or, with ``pid`` 0, soon to be); its outcomes tell how far it is."""

    def __init__(
        self, loop: Loop, exec_id: str, pid: int, pipes: wires.Pipes, *,
        terminal: bool, alone: bool,
    ) -> None:  # fmt: skip
        self.exec_id, self.pid, self.terminal = exec_id, 0, terminal
        self.ready, self.started, self.exited = Outcome(), Outcome(), Outcome()
        self.streams: dict[int, Stream] = {}
        self._loop, self._pipes = loop, pipes
        self._kept: Stream | None = None
        self._alone = alone  # its end is the end of all that share its streams
        self._console = -1
        self._reports = wires.Reports()
        self._start_wanted = self._went = False
        self.oom_killed: Callable[[], bool] = lambda: False
        if pid:
            self.born(pid)
        if not terminal:
            self._attach_pipes()
        self._program = b""  # for a settled child, while it was not sent
        self.unhurried = False

    def born(self, pid: int) -> None:
        """It was forked, now or a while after it was asked for."""
        self.pid = pid
        self._loop.watch(self._pipes.report, EPOLLIN, self._reports_ready)
        self._loop.on_exit(pid, self._ended)

    def unborn(self, error: KataError) -> None:
        """It could not be forked."""
        self.close()
        self._fail(error)
        self.exited.settle(error)

    @property
    def closed(self) -> bool:
        """Whether it was given up."""
        return self._pipes.report < 0

    def settled(self) -> None:
        """Prepare for the program of a settled child: its first output is what is waited for."""
        for stream in self._outputs():
            stream.watch()
        scheduling.come_first()

    def _outputs(self) -> list[Output]:
        return [stream for stream in self.streams.values() if isinstance(stream, Output)]

    def begin(self, program: bytes, *, stdin: bool, unhurried: bool) -> None:
        """Tell a settled child its program, at the end of the batch: with the start, if it comes.

        An input that is not wanted is kept, for it takes time to close. ``unhurried``: whether the
        program runs is not looked at before it has written something or ended, or ``look`` is
        called: to be woken by its execution would be in its way.
        """
        self.unhurried = unhurried
        if not stdin:
            self._kept = self.streams.pop(STDIN)
        self._program = program
        self._loop.at_last(self._send_program)

    def start(self) -> Outcome:
        """Let it execute its program, once it is ready for it."""
        if self._start_wanted:
            raise WrongState("the process was started already")
        self._start_wanted = True
        if self.ready.value is not None or not self.terminal:
            self._go()
        return self.started

    def signal(self, number: int) -> None:
        """Send a signal; raises ``NotFound`` if it ended."""
        if self.exited.value is not None:
            raise NotFound("the process has ended")
        if not self.pid:
            raise WrongState("the process is not there yet")
        os.kill(self.pid, number)

    def resize(self, rows: int, columns: int) -> None:
        """Set the size of its terminal."""
        if not self.terminal:
            raise WrongState("the process has no terminal")
        if self._console >= 0:
            tty.resize(self._console, rows, columns)

    @property
    def delivered(self) -> bool:
        """Whether all that it wrote is on its way to the host."""
        return all(stream.closed for stream in self.streams.values())

    def stream(self, number: int) -> Stream:
        """One of its standard streams. Raises ``NotFound`` if it was not asked for."""
        try:
            return self.streams[number]
        except KeyError:
            raise NotFound(f"the process has no stream {number}") from None

    def close(self) -> None:
        """Give up its streams and terminal."""
        for stream in self.streams.values():
            stream.close()
        if self._kept is not None:
            self._kept.close()
            self._kept = None
        self._close_console()
        self._end_reports()

    def _close_console(self) -> None:
        if self._console >= 0:
            os.close(self._console)
            self._console = -1

    def _attach_pipes(self) -> None:
        taken, self._pipes.stdio = self._pipes.stdio, [-1, -1, -1]
        if taken[STDIN] >= 0:
            self.streams[STDIN] = Input(self._loop, taken[STDIN], terminal=False)
        for number in (STDOUT, STDERR):
            if taken[number] >= 0:
                self.streams[number] = Output(self._loop, taken[number], terminal=False)

    def _attach_terminal(self, child_fd: int) -> None:
        pidfd = os.pidfd_open(self.pid)
        try:
            self._console = syscalls.pidfd_getfd(pidfd, child_fd)
        finally:
            os.close(pidfd)
        os.set_blocking(self._console, False)
        # duplicates: epoll knows a descriptor by its number, and each direction has its own life
        self.streams[STDIN] = Input(self._loop, os.dup(self._console), terminal=True)
        output = Output(self._loop, os.dup(self._console), terminal=True)
        output.on_refused = self._hang_up
        self.streams[STDOUT] = output

    def _hang_up(self) -> None:
        """Nobody reads from its terminal any more: as if that was closed (SIGHUP, EIO)."""
        for stream in self.streams.values():
            stream.close()
        self._close_console()

    def _go(self) -> None:
        if self._pipes.go < 0:
            return
        self._went = True
        if self._program:
            self._program += b"\1"
        else:
            self._send(b"\1")

    def _send_program(self) -> None:
        program, self._program = self._program, b""
        if self.unhurried and self._went:
            self._loop.forget(self._pipes.report)
            for stream in self._outputs():
                stream.on_first = self._has_written
        else:
            self.look()
        self._send(program)

    def _has_written(self) -> None:
        """That is sent first."""
        for stream in self._outputs():
            stream.on_first = None
        self._loop.at_last(self.look)

    def look(self) -> None:
        """Take note of its reports, from now on at once, and come first no more."""
        self.unhurried = False
        scheduling.give_way()
        if self._pipes.report >= 0:
            self._loop.watch(self._pipes.report, EPOLLIN, self._reports_ready)
            self._read_reports()

    def _send(self, data: bytes) -> None:
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[os.write(self._pipes.go, rest) :]
        except OSError:
            pass  # it ended: its reports or its exit say why

    def _reports_ready(self, _events: int) -> None:
        self._read_reports()

    def _read_reports(self) -> bool:
        """Read once; False if there is nothing (more) to read."""
        if self._pipes.report < 0:
            return False
        try:
            data = os.read(self._pipes.report, 1 << 16)
        except BlockingIOError:
            return False
        for item in self._reports.receive(data):
            self._reported(item)
        if not data:
            self._end_reports()
            if self._went:  # it was let go beforehand: running is its only report
                self.ready.settle(PidResponse(pid=self.pid))
            if self.ready.value is None or isinstance(self.ready.value, KataError):
                self._fail(self._death())
            else:
                self.started.settle(Empty())
        return bool(data)

    def _reported(self, item: tuple[Any, ...]) -> None:
        kind = item[0]
        if kind == wires.TERMINAL:
            self._attach_terminal(item[1])
        elif kind == wires.READY:
            if self.terminal and self._start_wanted:
                self._go()
            self.ready.settle(PidResponse(pid=self.pid))
        elif kind == wires.FAILED:
            self._fail(wires.failure_of(item))

    def _death(self) -> KataError:
        if self.oom_killed():
            return GuestError("container init was OOM-killed (memory limit too low?)")
        return GuestError("the process died while it was set up")

    def _fail(self, error: KataError) -> None:
        self.ready.settle(error)
        self.started.settle(error)

    def _end_reports(self) -> None:
        if self._pipes.report >= 0:
            self._loop.forget(self._pipes.report)
            self._pipes.close()

    def _ended(self, status: int) -> None:
        while self._read_reports():
            pass
        code = os.waitstatus_to_exitcode(status)
        died = self.ready.value
        if died is None:
            self._fail(self._death())
            died = self.ready.value
        if isinstance(self.started.value, KataError):
            died = self.started.value
        for number, stream in self.streams.items():
            if number == STDIN:
                stream.close()
            elif not self._alone and isinstance(stream, Output):
                stream.ending()
        self._close_console()  # its size is nobody's any more; what it holds the streams have
        if isinstance(died, KataError):
            self.exited.settle(died)
            return
        self.exited.settle(
            WaitResponse(
                exit_code=code if code >= 0 else 128 - code, signal=-code if code < 0 else 0,
                exited_at_ns=time.time_ns(), oom_killed=code != 0 and self.oom_killed(),
            )
        )  # fmt: skip
