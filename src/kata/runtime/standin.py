"""The stand-in: the host process whose pid engines know a container's process by.

It is forked by the command an engine calls, so that it becomes a child of the engine's monitor
(a child subreaper), lives in the network namespace of the sandbox, forwards signals, follows the
size of the terminal, and ends with the exit code of the process. The rule: it carries no bytes;
the supervisor has the descriptors, and the stand-in none but a terminal.
"""

from __future__ import annotations

import _signal
import os
import select

from kata.errors import KataError, WrongState
from kata.linux import namespaces, terminal, tty
from kata.linux import syscalls as sc
from kata.linux.capabilities import limit_bounding
from kata.linux.fds import close_others
from kata.linux.title import set_title
from kata.runtime.control_api import ExitResponse
from kata.runtime.shadow import NAMESPACES, Shadow, enter
from kata.runtime.store import LOST_EXIT_CODE
from kata.wire.agent_api import ProcessRequest, ResizeRequest, SignalRequest
from kata.wire.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kata.runtime.control import ControlClient

_NOT_FORWARDED = frozenset((_signal.SIGKILL, _signal.SIGSTOP, _signal.SIGCHLD))


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


@record
class Place:
    """Where a stand-in lives, and what it leads.

    ``title``: what process lists show. ``terminal``: the slave of a terminal. The first process of
    a container has a ``network`` (a descriptor) and a ``shadow``; others join its stand-in, whose
    pid ``beside`` is.
    """

    title: tuple[str, ...]
    terminal: int = -1
    network: int = -1
    shadow: Shadow | None = None
    beside: int = 0


def fork(client: ControlClient, container_id: str, place: Place) -> Standin:
    """Fork a stand-in with a connection of its own to the supervisor. Raises ``WrongState``."""
    reader, writer = os.pipe2(os.O_CLOEXEC)
    beside = _pidfd(place.beside) if place.beside else -1
    pid = _forked(beside)
    if pid:
        os.close(reader)
        if beside >= 0:
            os.close(beside)
        return Standin(pid, writer)
    code = LOST_EXIT_CODE
    try:
        os.close(writer)
        code = _stand(client, container_id, place, (reader, beside))
    except BaseException:
        code = 1
    finally:
        os._exit(code)


def _pidfd(pid: int) -> int:
    try:
        return os.pidfd_open(pid)
    except OSError:
        raise WrongState("container not running") from None


def _forked(beside: int) -> int:
    """As fork(2), into namespaces of its own, or into the pid namespace of another stand-in."""
    if beside < 0:
        return sc.clone(NAMESPACES)
    try:
        sc.setns(beside, sc.CLONE_NEWPID)
        pid = os.fork()
        if pid:
            namespaces.enter("pid", namespaces.path_of("pid"))
        return pid
    except OSError as error:
        raise WrongState("container not running", why=error.strerror or "") from None


def _stand(
    client: ControlClient, container_id: str, place: Place, given: tuple[int, int]
) -> int:
    go, beside = given
    signals, wake = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    _signal.pthread_sigmask(_signal.SIG_BLOCK, _signal.valid_signals())
    set_title(place.title)
    _settle(place, beside)
    kept = (client.fileno(), go, signals, wake, place.terminal)
    close_others([fd for fd in kept if fd >= 0])
    _catch(wake)
    word = os.read(go, 256)
    os.close(go)
    if not word:
        return 1
    if place.shadow is not None:
        enter(place.shadow)
    _give_up_rights()
    _signal.pthread_sigmask(_signal.SIG_SETMASK, ())
    return _Follower(client, container_id, word[1:].decode(), place.terminal, signals).run()


def _give_up_rights() -> None:
    """What is left to do needs none, and the files around it are the container's."""
    sc.prctl(sc.PR_SET_NO_NEW_PRIVS, 1)
    limit_bounding(0)
    sc.capset(0, 0, 0)


def _settle(place: Place, beside: int) -> None:
    """Leave the caller's streams, directory and session; enter the namespaces."""
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    for number in range(3):
        os.dup2(null, number)
    if place.network >= 0:
        sc.setns(place.network, sc.CLONE_NEWNET)
    if beside >= 0:
        sc.setns(beside, sc.CLONE_NEWNS | sc.CLONE_NEWNET | sc.CLONE_NEWIPC | sc.CLONE_NEWUTS)
    os.setsid()
    os.chdir("/")
    if place.terminal >= 0:
        tty.take(place.terminal)


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
        rows, columns = terminal.size(self._terminal)
        if rows and columns:
            request = ResizeRequest(
                container_id=self._container_id, exec_id=self._exec_id, rows=rows, columns=columns
            )
            self._client.send("Resize", request)
