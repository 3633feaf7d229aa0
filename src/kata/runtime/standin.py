"""The stand-in: the host process whose pid engines know a container's process by.

It is forked by the command an engine calls, so that it becomes a child of the engine's monitor
(a child subreaper), lives in the network namespace of the sandbox, forwards signals, follows the
size of the terminal, and ends with the exit code of the process. The rule: it carries no bytes;
the supervisor has the descriptors, and the stand-in none but a terminal.
"""

from __future__ import annotations

import _signal
import ctypes
import fcntl
import os
import select
import termios

from kata.errors import KataError
from kata.linux import namespaces, tty
from kata.linux import syscalls as sc
from kata.runtime.control_api import ExitResponse
from kata.runtime.store import LOST_EXIT_CODE
from kata.wire.agent_api import ProcessRequest, ResizeRequest, SignalRequest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from kata.runtime.control import ControlClient

_NOT_FORWARDED = frozenset((_signal.SIGKILL, _signal.SIGSTOP, _signal.SIGCHLD))
_COMM = 15  # bytes of a process's name that the kernel keeps


class Standin:
    """A forked process that waits for the word that its process is there, and then stands for it.

    Made by ``fork`` in the command; ``confirm`` there lets it begin, ``abandon`` ends it.
    """

    def __init__(self, pid: int, go: int) -> None:
        self.pid = pid
        self._go = go

    def confirm(self, exec_id: str = "") -> None:
        """The process is there."""
        os.write(self._go, b"." + exec_id.encode())
        os.close(self._go)

    def abandon(self) -> None:
        """There is no process: end the stand-in and reap it."""
        os.close(self._go)
        try:
            os.kill(self.pid, _signal.SIGKILL)
            os.waitpid(self.pid, 0)
        except (ProcessLookupError, ChildProcessError):
            pass


def fork(
    client: ControlClient, container_id: str, title: Sequence[str], *, network: int = -1,
    terminal: int = -1,
) -> Standin:  # fmt: skip
    """Fork a stand-in with a connection of its own to the supervisor.

    ``network``: a descriptor of the namespace it is to live in; ``terminal``: the slave it is to
    lead; ``title``: what process lists are to show.
    """
    reader, writer = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid:
        os.close(reader)
        return Standin(pid, writer)
    code = LOST_EXIT_CODE
    try:
        os.close(writer)
        code = _stand(client, container_id, title, reader, network, terminal)
    except BaseException:
        code = 1
    finally:
        os._exit(code)


def _stand(
    client: ControlClient, container_id: str, title: Sequence[str], go: int, network: int,
    terminal: int,
) -> int:  # fmt: skip
    signals, wake = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    _signal.pthread_sigmask(_signal.SIG_BLOCK, _signal.valid_signals())
    _settle(network, terminal, (client.fileno(), go, signals, wake, terminal))
    _rename(title)
    _catch(wake)
    word = os.read(go, 256)
    os.close(go)
    if not word:
        return 1
    _signal.pthread_sigmask(_signal.SIG_SETMASK, ())
    return _Follower(client, container_id, word[1:].decode(), terminal, signals).run()


def _settle(network: int, terminal: int, kept: tuple[int, ...]) -> None:
    """Leave the caller's directory, session and descriptors; enter the network."""
    if network >= 0:
        sc.setns(network, sc.CLONE_NEWNET)
    os.setsid()
    os.chdir("/")
    if terminal >= 0:
        tty.take(terminal)
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    for number in range(3):
        os.dup2(null, number)
    wanted = {0, 1, 2, *kept}
    for name in os.listdir("/proc/self/fd"):
        if int(name) not in wanted:
            try:
                os.close(int(name))
            except OSError:
                pass  # the one that listed the directory


def _rename(title: Sequence[str]) -> None:
    """Show a container's command in process lists: proc(5) takes it from the process's memory."""
    sc.prctl(sc.PR_SET_NAME, os.fsencode(os.path.basename(title[0]))[:_COMM] + b"\0")
    with open("/proc/self/stat", "rb") as file:
        fields = file.read().rpartition(b")")[2].split()
    start, end = int(fields[45]), int(fields[46])  # arg_start, arg_end: 48 and 49 of the line
    text = b"\0".join(os.fsencode(word) for word in title)[: end - start - 1]
    ctypes.memmove(start, text.ljust(end - start, b"\0"), end - start)


def _catch(wake: int) -> None:
    _signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    for number in _signal.valid_signals() - _NOT_FORWARDED:
        try:
            _signal.signal(number, _noted)
        except (OSError, ValueError):
            continue  # those of the C library


def _noted(*_: object) -> None:
    """Only the wake-up descriptor matters."""


class _Follower:
    """Waits for the end of the process, and passes on what happens to the stand-in."""

    def __init__(
        self, client: ControlClient, container_id: str, exec_id: str, terminal: int, signals: int
    ) -> None:
        self._client = client
        self._container_id, self._exec_id = container_id, exec_id
        self._terminal = terminal
        self._signals = signals

    def run(self) -> int:
        """The exit code of the process."""
        request = ProcessRequest(container_id=self._container_id, exec_id=self._exec_id)
        try:
            number = self._client.send("Wait", request)
            if self._terminal >= 0:
                self._resize()
            poll = select.poll()
            poll.register(self._client.fileno(), select.POLLIN)
            poll.register(self._signals, select.POLLIN)
            while not (self._client.answered(number) or self._client.closed):
                for fd, _ in poll.poll():
                    if fd == self._signals:
                        self._forward(os.read(self._signals, 512))
                    else:
                        self._client.pump()
            answer = self._client.result(number)
        except KataError:
            return LOST_EXIT_CODE
        assert isinstance(answer, ExitResponse)
        return answer.exit_code

    def _forward(self, numbers: bytes) -> None:
        for number in numbers:
            if number == _signal.SIGWINCH and self._terminal >= 0:
                self._resize()
                continue
            request = SignalRequest(
                container_id=self._container_id, exec_id=self._exec_id, signal=number
            )
            self._client.send("Signal", request)

    def _resize(self) -> None:
        size = fcntl.ioctl(self._terminal, termios.TIOCGWINSZ, bytes(8))
        rows, columns = (int.from_bytes(size[at : at + 2], "little") for at in (0, 2))
        if rows and columns:
            request = ResizeRequest(
                container_id=self._container_id, exec_id=self._exec_id, rows=rows, columns=columns
            )
            self._client.send("Resize", request)


def new_network() -> int:
    """A network namespace of its own for a sandbox, with loopback up: its descriptor."""
    before = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        sc.unshare(sc.CLONE_NEWNET)
        try:
            namespaces.loopback_up()
            return os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        finally:
            sc.setns(before, sc.CLONE_NEWNET)
    finally:
        os.close(before)
