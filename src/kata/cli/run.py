"""``kata run``: a container in a virtual machine of its own, as ``docker run`` has it."""

from __future__ import annotations

import _signal
import os
import sys
import time
from _socket import AF_UNIX, SOCK_CLOEXEC, SOCK_STREAM, socketpair

from kata.cli.streams import StandardStreams
from kata.config.load import load
from kata.errors import AlreadyExists, GuestError, HostError, InvalidInput, KataError, WrongState
from kata.runtime.store import POOL_SOCKET, ContainerState, Store, check_name
from kata.runtime.timing import Marks, process_start_ns

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket
    from collections.abc import Callable, Mapping
    from typing import NoReturn

    from kata.cli.parse import Options
    from kata.cli.taken import Taken
    from kata.config.settings import Config
    from kata.runtime.control_api import ExitResponse
    from kata.runtime.machines import Launch
    from kata.runtime.request import RunRequest
    from kata.runtime.supervisor import Supervisor

_KILLED = 137
_INTERRUPTED = 130
_ENDING = (_signal.SIGINT, _signal.SIGTERM, _signal.SIGHUP)


def run(options: Options) -> int:
    """Run a container; gives the exit code of its process, or what Docker gives for failures."""
    begin, marks = process_start_ns(), Marks()
    marks.mark("main")
    config = load(options.config, state_root=options.root, data_root=options.data_root)
    _check(options)
    from kata.cli.run_request import build
    from kata.runtime.machines import resolve

    store = Store(config.runtime.state_root)
    store.check_writable()
    request = build(options, config)
    marks.mark("parsed")
    state = _state(request, options, config)
    one = _Run(options, config, request, store, state, (begin, marks))
    try:
        one.reserve()
        _write_cidfile(options, request)
        # may take seconds: the name is ours by then
        return one.go(lambda: resolve(request, config, say=_say))
    except BaseException:
        one.give_up()
        raise


def _check(options: Options) -> None:
    if os.geteuid() != 0:
        raise HostError(
            "kata run must be run as root",
            why="it makes namespaces, devices and a user id for the virtual machine",
            hint="sudo kata run …",
        )
    if options.tty and options.interactive and not options.detach and not _is_terminal():
        raise InvalidInput(
            "the input device is not a TTY", hint="leave out -t when standard input is a pipe"
        )
    if options.format and not options.timing:
        raise InvalidInput("--format says how the timing is printed", hint="add --timing")
    if options.name:
        check_name(options.name)
    if options.stop_timeout:
        from kata.cli.numbers import seconds

        seconds(options.stop_timeout, "--stop-timeout")


def _is_terminal() -> bool:
    from kata.linux.terminal import is_terminal

    return is_terminal(0)


def _say(text: str) -> None:
    print(f"kata: {text}", file=sys.stderr, flush=True)


def _state(request: RunRequest, options: Options, config: Config) -> ContainerState:
    labels = (label.partition("=") for label in options.label)
    return ContainerState(
        id=request.id,
        name=check_name(options.name) if options.name else request.name,
        image=request.image,
        command=request.container.process.args,
        created_ns=time.time_ns(),
        auto_remove=options.rm,
        terminal=options.tty,
        memory_mib=request.machine_memory,
        vcpus=request.machine_vcpus,
        stop_signal=request.stop_signal,
        stop_timeout=int(options.stop_timeout or config.runtime.stop_timeout),
        labels=tuple((key, value) for key, _, value in labels),
    )


def _write_cidfile(options: Options, request: RunRequest) -> None:
    if not options.cidfile:
        return
    try:
        with open(options.cidfile, "x") as file:
            file.write(request.id)
    except FileExistsError:
        raise AlreadyExists(
            f'the container id file "{options.cidfile}" exists',
            hint="remove it, or choose another --cidfile",
        ) from None
    except OSError as error:
        raise HostError(f'cannot write "{options.cidfile}"', why=error.strerror or "") from None


class _Forked:
    """The supervisor, if it is our child."""

    def __init__(self, pid: int) -> None:
        self._pid = pid

    def wait(self) -> str:
        """Wait for its end; what there is to say of that."""
        code = os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])
        return f"killed by signal {-code}" if code < 0 else f"it ended with code {code}"

    def kill(self) -> None:
        """End it at once."""
        try:
            os.kill(self._pid, 9)
            os.waitpid(self._pid, 0)
        except (ProcessLookupError, ChildProcessError):
            pass  # it was waited for


class _Run:
    """One run: the supervisor forked, or one of the pool taken; the caller attached to it."""

    def __init__(
        self, options: Options, config: Config, request: RunRequest, store: Store,
        state: ContainerState, timing: tuple[int, Marks],
    ) -> None:  # fmt: skip
        self._options = options
        self._config = config
        self._request = request
        self._store = store
        self._state = state
        self._begin, self._marks = timing
        self._supervisor: _Forked | Taken | None = None
        self._lock = -1

    def reserve(self) -> None:
        """Take the name, and the lock that the supervisor will hold."""
        for number in (_signal.SIGTERM, _signal.SIGHUP):
            if _signal.getsignal(number) is not _signal.SIG_IGN:
                _signal.signal(number, _end)
        # a signal in between would leave it taken, by a lock of ours that nobody knows
        mask = _signal.pthread_sigmask(_signal.SIG_BLOCK, _ENDING)
        try:
            self._lock = self._store.create(self._state)
        finally:
            _signal.pthread_sigmask(_signal.SIG_SETMASK, mask)

    def give_up(self) -> None:
        """Leave nothing of a container that no supervisor has taken over."""
        self._let_go()
        state = self._state
        if os.path.isdir(self._store.directory(state.id)) and not self._store.alive(state.id):
            self._store.forget(state)

    def _let_go(self) -> None:
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def go(self, resolve: Callable[[], Launch]) -> int:
        """Start it, and serve it to its end unless detached."""
        options = self._options
        if options.detach:
            streams: Mapping[int, int] = {}
            relay, outputs = -1, {}
        else:
            standard = StandardStreams(
                interactive=options.interactive, terminal=options.tty, relayed=True
            )
            streams, relay, outputs = dict(standard.wanted()), standard.relay, standard.outputs
        try:
            channel = self._begin_supervisor(resolve, streams)
            # the supervisor has begun already and needs none of these
            from kata.cli.attach import Attachment, exit_code
            from kata.runtime.control import ControlClient
            from kata.wire.agent_api import Empty

            client = ControlClient(channel)
            if not options.detach:
                standard.handed_over()
            attachment = Attachment(client, "", terminal=options.tty, relay=relay, outputs=outputs)
            attachment.catch_signals()
        except BaseException:
            self._let_go()
            if self._supervisor is not None:  # a signal that could not be passed on yet
                self._end_supervisor()
            raise
        started = client.send("Started", Empty())
        ended = attachment.ask()
        attachment.wait_for(started, interrupted=self._abandon)
        try:
            client.result(started)
            if options.detach:
                print(self._state.id)
                return 0
            answer = attachment.wait(ended)
        except WrongState as error:
            return self._lost(error)
        except GuestError as error:
            from kata.cli.run_request import without_config

            raise without_config(error, options.workdir or "") from None
        assert self._supervisor is not None
        self._supervisor.wait()
        self._marks.mark("done")
        self._report(answer)
        return exit_code(answer)

    def _begin_supervisor(
        self, resolve: Callable[[], Launch], streams: Mapping[int, int]
    ) -> socket:
        """Have a supervisor: a ready one of the pool, or a child; our connection to it."""
        ours, theirs = socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC)
        if not self._take(theirs, streams):
            launch = resolve()
            self._marks.mark("resolved")
            self._fork(launch, theirs, streams)
        theirs.close()
        self._let_go()
        return ours

    def _take(self, theirs: socket, streams: Mapping[int, int]) -> bool:
        """Give it to a ready sandbox, if there is one; where nobody keeps any, nothing is done."""
        if not os.path.exists(f"{self._store.root}/{POOL_SOCKET}"):
            return False
        from kata.runtime.run_order import find

        member = find(self._request, self._config)
        if member is None:
            return False
        from kata.cli.taken import Taken

        self._marks.mark("found")
        held = [theirs.fileno(), self._lock]
        try:
            self._supervisor = taken = Taken(member)
            handed = taken.hand(self._store, self._state, self._request, held, streams)
        except OSError:
            handed = False  # it has ended
        if not handed:
            self._supervisor = None
        return handed

    def _fork(self, launch: Launch, theirs: socket, streams: Mapping[int, int]) -> None:
        from kata.runtime.birth import Child
        from kata.runtime.run_workload import RunWorkload

        pid = os.fork()
        if pid == 0:
            self._marks.mark("forked")
            owned = {number: os.dup(fd) if fd < 3 else fd for number, fd in streams.items()}
            first = RunWorkload(self._request, self._config.runtime.data_root)
            child = Child(
                (first, launch), self._config, self._store, self._state, _run_supervisor
            )
            child.marks.list = self._marks.list
            child.supervise([theirs], owned, {self._lock})
        self._supervisor = _Forked(pid)

    def _abandon(self, number: int) -> None:
        """A signal before there is a process: end everything. Raises ``SystemExit``."""
        self._end_supervisor()
        raise SystemExit(128 + number)

    def _end_supervisor(self) -> None:
        from kata.runtime.cleanup import remove

        assert self._supervisor is not None
        self._supervisor.kill()
        remove(self._store, self._state, force=True)

    def _lost(self, error: KataError) -> int:
        """The supervisor is gone without a word: clean up what it left, and say so."""
        assert self._supervisor is not None
        why = self._supervisor.wait()
        if self._state.auto_remove or not self._started():
            self._end_supervisor()
        _say(f'the supervisor of container "{self._state.name}" is gone: {why}')
        _say("  hint: its virtual machine was ended with it, and nothing of it is left running")
        del error
        return _KILLED

    def _started(self) -> bool:
        try:
            return self._store.load(self._state.id).started_ns > 0
        except KataError:
            return False

    def _report(self, answer: ExitResponse) -> None:
        if answer.oom_killed and not answer.error:
            _say(f'container "{self._state.name}" ran out of memory, and a process was killed')
        if answer.log_error:
            where = f'state directory "{self._store.root}"'
            _say(f"the log is not complete: cannot write to the {where}: {answer.log_error}")
        if self._options.timing:
            from kata.cli.timing import report

            marks = [*self._marks.list, *_marks(answer)]
            report(self._begin, marks, self._options.format)


def _end(number: int, _frame: object) -> NoReturn:
    """A signal while there is no process to pass it to: what was begun is taken back."""
    raise SystemExit(128 + number)


def _marks(answer: ExitResponse) -> list[tuple[str, int]]:
    from kata.wire import quickjson

    known = {"main", "parsed", "found", "resolved"}
    return [(n, t) for n, t in quickjson.loads(answer.timing or b"[]") if n not in known]


def _run_supervisor() -> type[Supervisor]:
    from kata.runtime.supervisor import RunSupervisor

    return RunSupervisor
