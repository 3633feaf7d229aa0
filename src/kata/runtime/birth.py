"""How a command line's child becomes the supervisor of a sandbox.

Forked before any thread exists. The rule: until the VMM is spawned nothing is loaded or done that
can wait; while that starts there is time for it.
"""

from __future__ import annotations

import _signal
import _thread
import os

from kata.errors import KataError
from kata.runtime.sandbox import Sandbox
from kata.runtime.timing import Marks

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket
    from collections.abc import Callable, Mapping, Sequence

    from kata.config.settings import Config
    from kata.runtime.machines import Launch
    from kata.runtime.store import ContainerState, Store
    from kata.runtime.supervisor import Supervisor
    from kata.runtime.workload import Workload

# of a pipe: both ends, so that neither its opening waits for a reader nor a write fails without one
_LOG = os.O_RDWR | os.O_NONBLOCK | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC


class Child:
    """The forked process; ``become`` gives its kind of supervisor once there is time to load it."""

    def __init__(
        self, asked: tuple[Workload, Launch], config: Config, store: Store,
        state: ContainerState, become: Callable[[], Callable[..., Supervisor]],
    ) -> None:  # fmt: skip
        self._first, launch = asked
        self._store, self._state, self._become = store, state, become
        self.marks = Marks()
        self._sandbox = Sandbox(
            self._first, launch, config, self.marks, store.directory(state.id)
        )

    def supervise(
        self, channels: Sequence[socket], fds: Mapping[int, int], keep: set[int], log: str = ""
    ) -> None:
        """Become the supervisor, and never return.

        ``channels`` are the command line's connections; ``keep`` are the descriptors needed besides
        ``fds``; standard input and output go to /dev/null, standard error to ``log``
        (unless given, a file beside the state), which may be a pipe.
        """
        code = 0
        try:
            log = log or f"{self._store.directory(self._state.id)}/supervisor.log"
            detach(fds, keep | {channel.fileno() for channel in channels}, log)
            self.go(channels, fds)
        except BaseException:
            from traceback import print_exc

            print_exc()
            code = 1
        finally:
            os._exit(code)

    def go(self, channels: Sequence[socket], fds: Mapping[int, int]) -> None:
        """Spawn the machine and see the sandbox to its end; for a process that is detached."""
        failure: KataError | None = None
        try:
            self._sandbox.launch()
        except KataError as error:
            failure = error
        kind = self._become()
        supervisor = kind(self._sandbox, self._first, self._store, self._state, self.marks)
        supervisor.run(channels, fds, failure)


def detach(fds: Mapping[int, int], keep: set[int], log: str) -> None:
    """Leave the session, the directory, the signals and the descriptors of the caller."""
    os.setsid()
    os.chdir("/")
    _reset_signals()
    _thread.stack_size(256 << 10)
    _own_descriptors(fds, keep, log)


def _reset_signals() -> None:
    """A terminal's or a shell's signals are for the command line, not for the supervisor."""
    _signal.set_wakeup_fd(-1)
    for number in (_signal.SIGINT, _signal.SIGQUIT, _signal.SIGHUP, _signal.SIGPIPE):
        _signal.signal(number, _signal.SIG_IGN)
    for number in (_signal.SIGTERM, _signal.SIGUSR1, _signal.SIGUSR2, _signal.SIGALRM):
        _signal.signal(number, _signal.SIG_DFL)


def _own_descriptors(fds: Mapping[int, int], keep: set[int], log: str) -> None:
    """Close all but what is needed; give 0 to 2 a place where nothing of the caller's is held."""
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    try:
        errors = os.open(log, _LOG, 0o600)
    except OSError:
        errors = null  # a full disk: what fails because of it is reported by whoever needs it
    os.dup2(null, 0, inheritable=False)
    os.dup2(null, 1, inheritable=False)
    os.dup2(errors, 2, inheritable=False)
    kept = keep | set(fds.values()) | {0, 1, 2}
    for name in os.listdir("/proc/self/fd"):
        if int(name) not in kept:
            try:
                os.close(int(name))
            except OSError:
                pass  # the one that listed the directory
