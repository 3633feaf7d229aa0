"""A person's (or a script's) end of a process in a container: signals, terminal, waiting.

Descriptors that are not terminals are given to the supervisor, which moves the bytes itself.
A terminal on stdin is read here and relayed: a supervisor reading it would compete with the shell
while this program is stopped or in the background. Without ``-t`` output to a terminal is relayed
too: it stops when this program is stopped (Ctrl-Z).
"""

from __future__ import annotations

import _signal
import os
import select
import time

from kata.cli.forwarded import ENDING, FORWARDED
from kata.errors import KataError
from kata.linux.terminal import RawTerminal, is_terminal, size
from kata.runtime.control_api import ExitResponse
from kata.runtime.streams import write_all
from kata.wire.agent_api import Empty, ProcessRequest, ResizeRequest, SignalRequest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from kata.runtime.control import ControlClient

_FAILED = 125  # the code of a failure of ours
_HUNG_UP = 129
_GRACE_S = 10.0  # that a process has whose terminal was closed
_PATIENCE_MS = 1000  # with a supervisor that is asked before it answers anything
_INSIST = 3  # after so many SIGINT or SIGTERM the process is killed


class Attachment:
    """Waits for a process in a container while passing on signals, input and window sizes."""

    def __init__(
        self, client: ControlClient, exec_id: str, *, terminal: bool, relay: int,
        container_id: str = "", outputs: Mapping[int, int] | None = None,
    ) -> None:  # fmt: skip
        self._client = client
        self._container_id = container_id
        self._exec_id = exec_id
        self._terminal = terminal
        self._relay = relay
        self._outputs = dict(outputs or {})
        self._deadline = 0.0  # until when a process may live on without its terminal
        self._pending = b""
        self._raw: RawTerminal | None = None
        self._insisted = 0
        self._early = bytearray()  # signals from before the news of the start
        self._signals, self._signals_in = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)

    def catch_signals(self) -> None:
        """From now on signals are collected, to be passed on once there is a process."""
        _signal.set_wakeup_fd(self._signals_in, warn_on_full_buffer=False)
        for number in FORWARDED:
            if _signal.getsignal(number) is not _signal.SIG_IGN:
                _signal.signal(number, _ignore)
        if self._terminal:
            _signal.signal(_signal.SIGWINCH, _ignore)

    def wait_for(self, number: int, *, interrupted: Callable[[int], None] | None = None) -> None:
        """Wait for the news that there is a process; signals that come first are for it, later.

        But signals that end a program give up what has not begun: ``interrupted`` is called.
        """
        poll = select.poll()
        poll.register(self._client.fileno(), select.POLLIN)
        poll.register(self._signals, select.POLLIN)
        while not (self._client.answered(number) or self._client.closed):
            for fd, _ in poll.poll():
                if fd != self._signals:
                    self._client.pump()
                    continue
                for signal in _drain(self._signals):
                    if interrupted is not None and signal in ENDING and not self._has_begun():
                        interrupted(signal)
                    self._early.append(signal)

    def _has_begun(self) -> bool:
        """Whether the process has written something: the news of its start comes after that."""
        sent = self._client.send("HasWritten", Empty())
        poll = select.poll()
        poll.register(self._client.fileno(), select.POLLIN)
        while not (self._client.answered(sent) or self._client.closed):
            if not poll.poll(_PATIENCE_MS):
                return False
            self._client.pump()
        try:
            self._client.result(sent)
        except KataError:
            return False
        return True

    def ask(self) -> int:
        """Ask for the end of the process; what ``wait`` then waits for."""
        request = ProcessRequest(container_id=self._container_id, exec_id=self._exec_id)
        return self._client.send("Wait", request)

    def wait(self, number: int) -> ExitResponse:
        """Serve the process until the answer to ``ask``; raises what the supervisor reports."""
        try:
            if self._terminal and is_terminal(0):
                self._raw = RawTerminal(0)
            if self._terminal:
                self._resize()
            self.forward(bytes(self._early))
            while not (self._client.answered(number) or self._client.closed):
                self._turn()
        finally:
            if self._raw is not None:
                self._raw.restore()
        while self._outputs:
            self._pass_output(next(iter(self._outputs)))  # to its end: nobody writes any more
        answer = self._client.result(number)
        assert isinstance(answer, ExitResponse)
        if self._deadline < 0:
            answer.exit_code = _HUNG_UP
        return answer

    def _turn(self) -> None:
        poll = select.poll()
        for fd in (self._client.fileno(), self._signals, *self._outputs):
            poll.register(fd, select.POLLIN)
        if self._relay >= 0:
            if self._pending:
                poll.register(self._relay, select.POLLOUT)
            else:
                poll.register(0, select.POLLIN)
        for fd, _ in poll.poll(self._patience_ms()):
            if fd == self._client.fileno():
                self._client.pump()
            elif fd == self._signals:
                self.forward(_drain(self._signals))
            elif fd in self._outputs:
                self._pass_output(fd)
            elif fd == 0:
                self._take_input()
            else:
                self._pass_input()

    def _patience_ms(self) -> float | None:
        """How long to wait; kills the process once it has outlived its terminal for too long."""
        if self._deadline <= 0:
            return None
        left = self._deadline - time.monotonic()
        if left > 0:
            return left * 1000
        self._deadline = -1.0
        self._signal(_signal.SIGKILL)
        return None

    def _pass_output(self, fd: int) -> None:
        try:
            data = os.read(fd, 65536)
            write_all(self._outputs[fd], data)
        except OSError:  # the terminal was closed: the process gets what it gets from a pipe
            data = b""
        if not data:
            del self._outputs[fd]
            os.close(fd)

    def _take_input(self) -> None:
        try:
            self._pending = os.read(0, 4096)
        except OSError:  # hung up, or we are in the background
            self._pending = b""
        if self._pending:
            self._pass_input()
        else:
            self._close_relay()

    def _pass_input(self) -> None:
        try:
            self._pending = self._pending[os.write(self._relay, self._pending) :]
        except BlockingIOError:
            pass
        except OSError:  # nobody reads it any more
            self._close_relay()

    def _close_relay(self) -> None:
        os.close(self._relay)
        self._relay = -1

    def forward(self, numbers: bytes) -> None:
        """Pass on signals that we got, one byte each."""
        for number in numbers:
            if number == _signal.SIGWINCH:
                self._resize()
            elif number == _signal.SIGCONT and self._raw is not None:
                self._raw.enter()
                self._resize()
            else:
                self._signal(number)

    def _signal(self, number: int) -> None:
        if number == _signal.SIGHUP and self._terminal and not is_terminal(0):
            self._deadline = self._deadline or time.monotonic() + _GRACE_S  # none can attach again
        if number in (_signal.SIGINT, _signal.SIGTERM):
            self._insisted += 1
            if self._insisted >= _INSIST:
                number = _signal.SIGKILL
        request = SignalRequest(
            container_id=self._container_id, exec_id=self._exec_id, signal=number
        )
        self._send("Signal", request)

    def _resize(self) -> None:
        rows, columns = size(0) if is_terminal(0) else size(1)
        if rows and columns:
            request = ResizeRequest(
                container_id=self._container_id, exec_id=self._exec_id, rows=rows, columns=columns
            )
            self._send("Resize", request)

    def _send(self, method: str, request: SignalRequest | ResizeRequest) -> None:
        try:
            self._client.send(method, request)
        except KataError:
            pass  # the end is being reported through the wait


def exit_code(answer: ExitResponse) -> int:
    """The exit code for how a process ended; says so if it was lost, or output of it was."""
    if answer.error:
        tell(answer.error)
    if answer.output_error:
        tell(f"cannot write the output: {answer.output_error}")
        return answer.exit_code or _FAILED
    return answer.exit_code


def tell(text: str) -> None:
    """A line for the caller; standard error may be what cannot be written."""
    try:
        os.write(2, f"kata: {text}\n".encode())
    except OSError:
        pass


def _ignore(*_: object) -> None:
    """Only the wake-up descriptor matters."""


def _drain(fd: int) -> bytes:
    try:
        return os.read(fd, 512)
    except BlockingIOError:
        return b""
