"""``kata-runtime exec``: one more process in a running container, with a stand-in of its own."""

from __future__ import annotations

import os

from kata.cli.runtime.containers import connect, find
from kata.cli.runtime.handover import (
    open_terminal,
    own_streams,
    send_pidfd,
    send_terminal,
    write_pid_file,
)
from kata.errors import InvalidInput, InvalidSpec, Unsupported, WrongState
from kata.oci.honoured import drop_unknown_capabilities
from kata.runtime import standin
from kata.runtime.control_calls import ExecRequest, ExecResponse
from kata.runtime.store import CREATED, LOST_EXIT_CODE, PAUSED, RUNNING
from kata.wire import quickjson

_HIGHEST_ID = (1 << 31) - 1  # as runc has it; 4294967295 would mean "stay root" to the kernel

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from kata.cli.parse import Options
    from kata.cli.streams import StandardStreams
    from kata.runtime.store import ContainerState, Store

    Process = dict[str, Any]


def run(options: Options) -> int:
    """Run it; gives its exit code, or 0 when detached."""
    if int(options.preserve_fds or 0):
        raise Unsupported("--preserve-fds is not supported")
    if any(path.strip("/") for path in options.cgroup or ()):
        raise Unsupported(
            "--cgroup is not supported", why="what is below the container's group is in the guest"
        )
    store, state = find(options)
    if state.status == PAUSED and not options.ignore_paused:
        raise WrongState("cannot exec in a paused container (use --ignore-paused to override)")
    if state.status not in (RUNNING, PAUSED, CREATED):
        raise WrongState("cannot exec in a stopped container")
    process = _process(options, store, state)
    terminal = bool(process.get("terminal"))
    if options.detach and terminal and not options.console_socket:
        raise InvalidInput("cannot allocate tty if runc will detach without setting console socket")
    if options.console_socket and not terminal:
        raise InvalidInput("cannot use console socket if runc will not detach or allocate tty")
    return _Execution(options, store, state, process).go()


def _process(options: Options, store: Store, state: ContainerState) -> Process:
    if options.process:
        from kata.oci.spec import parse_process

        try:
            with open(options.process, "rb") as file:
                process = parse_process(file.read(), options.process)
        except OSError as error:
            why = error.strerror or ""
            raise InvalidInput(f'process file "{options.process}"', why=why) from None
        drop_unknown_capabilities(process)
        return process
    words = options.words[1:]
    if words[:1] == ["--"]:
        words = words[1:]
    if not words:
        raise InvalidInput("process args cannot be empty")
    process = dict(_configured(store, state))
    process["args"] = words
    process["terminal"] = options.tty
    process.pop("consoleSize", None)
    if options.cwd:
        process["cwd"] = options.cwd
    process["env"] = [*(process.get("env") or ()), *options.env]
    if options.no_new_privs:
        process["noNewPrivileges"] = True
    return _with_user(_with_capabilities(process, options), options)


def _configured(store: Store, state: ContainerState) -> Process:
    from kata.oci.spec import parse

    try:
        with open(f"{store.directory(state.id)}/config.json", "rb") as file:
            found: Process = parse(file.read())["process"]
            return found
    except (OSError, InvalidSpec) as error:
        raise WrongState("the configuration of the container is gone", why=str(error)) from None


def _with_capabilities(process: Process, options: Options) -> Process:
    if not options.cap:
        return process
    sets = {k: list(v or ()) for k, v in (process.get("capabilities") or {}).items()}
    for name in ("bounding", "effective", "permitted"):
        sets[name] = list(dict.fromkeys([*sets.get(name, ()), *options.cap]))
    process = {**process, "capabilities": sets}
    drop_unknown_capabilities(process)
    return process


def _with_user(process: Process, options: Options) -> Process:
    user = dict(process.get("user") or {})
    if options.user:
        uid, colon, gid = options.user.partition(":")
        user["uid"] = _id(uid, "user")
        if colon:
            user["gid"] = _id(gid, "group")
    if options.additional_gids:
        extra = [_id(g, "group") for text in options.additional_gids for g in text.split(",")]
        user["additionalGids"] = [*(user.get("additionalGids") or ()), *extra]
    return {**process, "user": user}


def _id(text: str, what: str) -> int:
    if not text.isdecimal():
        raise InvalidInput(f'parsing "{text}" as int for {what} id failed: invalid syntax')
    if int(text) > _HIGHEST_ID:
        raise InvalidInput(
            f"unable to setup {what} {text}", why=f"uids and gids must be in range 0-{_HIGHEST_ID}"
        )
    return int(text)


class _Execution:
    """One process: its streams, its stand-in, the wait for its end."""

    def __init__(
        self, options: Options, store: Store, state: ContainerState, process: Process
    ) -> None:
        self._options = options
        self._store, self._state = store, state
        self._process = process
        self._terminal = bool(process.get("terminal"))

    def go(self) -> int:
        """Run it."""
        options = self._options
        if options.detach or options.console_socket:
            return self._with_standin()
        from kata.cli.streams import StandardStreams

        standard = StandardStreams(interactive=True, terminal=self._terminal)
        return self._in_front(standard)

    def _request(self, streams: list[int], pid: int = 0) -> ExecRequest:
        return ExecRequest(
            container_id=self._state.id, streams=streams, pid=pid,
            process=quickjson.dumps(self._process).encode(),
        )  # fmt: skip

    def _with_standin(self) -> int:
        options = self._options
        master = slave = -1
        if self._terminal:
            master, slave = open_terminal(self._process)
        client = connect(self._store, self._state)
        other = connect(self._store, self._state)
        place = standin.Place(
            tuple(self._process["args"]), terminal=slave, beside=self._state.pid
        )
        stand = standin.fork(other, self._state.id, place)
        other.close()
        try:
            streams = {0: slave, 1: slave} if slave >= 0 else own_streams()
            request = self._request(list(streams), stand.pid)
            answer = client.ask("Exec", request, ExecResponse, list(streams.values()))
            assert isinstance(answer, ExecResponse)
            if master >= 0:
                send_terminal(options.console_socket, master)
            if options.pidfd_socket:
                send_pidfd(options.pidfd_socket, stand.pid)
            if options.pid_file:
                write_pid_file(options.pid_file, stand.pid)
        except BaseException:
            stand.abandon()
            raise
        stand.confirm(answer.exec_id)
        if options.detach:
            return 0
        return os.waitstatus_to_exitcode(os.waitpid(stand.pid, 0)[1])

    def _in_front(self, standard: StandardStreams) -> int:
        """Without a stand-in: we are the process that stands for it."""
        from kata.cli.attach import Attachment, tell

        client = connect(self._store, self._state)
        wanted = standard.wanted()
        if self._options.pid_file:
            write_pid_file(self._options.pid_file, os.getpid())
        request = self._request([stream for stream, _ in wanted], os.getpid())
        number = client.send("Exec", request, [fd for _, fd in wanted])
        standard.handed_over()
        answer = client.result(number)
        assert isinstance(answer, ExecResponse)
        attachment = Attachment(
            client, answer.exec_id, terminal=self._terminal, relay=standard.relay,
            container_id=self._state.id,
        )  # fmt: skip
        attachment.catch_signals()
        try:
            end = attachment.wait(attachment.ask())
        except WrongState:
            return LOST_EXIT_CODE
        if end.error:
            tell(end.error)
        return end.exit_code
