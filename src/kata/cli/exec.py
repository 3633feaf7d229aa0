"""``kata exec``: a further process in a running container."""

from __future__ import annotations

import os

from kata.cli.attach import Attachment, exit_code, tell
from kata.cli.run_request import read_file, terminal_size, without_config, workdir
from kata.cli.streams import StandardStreams
from kata.config.load import load
from kata.errors import GuestError, InvalidInput, KataError, WrongState
from kata.oci import options as values
from kata.runtime.control import connect
from kata.runtime.control_api import ExecRequest, ExecResponse
from kata.runtime.store import LOST_EXIT_CODE, PAUSED, RUNNING, STOPPED, Store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kata.cli.parse import Options
    from kata.runtime.control import ControlClient
    from kata.runtime.store import ContainerState


def run(options: Options) -> int:
    """Run a command in a container; gives its exit code."""
    config = load(options.config, state_root=options.root, data_root=options.data_root)
    store = Store(config.runtime.state_root)
    state = store.find(options.container)
    if state.status not in (RUNNING, PAUSED):
        raise WrongState(f'container "{state.name}" is not running')
    if state.status == PAUSED:
        raise WrongState(f'container "{state.name}" is paused')
    if not options.command:
        raise InvalidInput("kata exec needs a command", hint="kata exec -it CONTAINER sh")
    request = _request(options)
    request.container_id = state.id
    client = connect(store.owner(state), state.name)
    try:
        return _serve(options, store, state, request, client)
    except GuestError as error:
        raise without_config(error, request.cwd) from None


def _serve(
    options: Options, store: Store, state: ContainerState, request: ExecRequest,
    client: ControlClient,
) -> int:  # fmt: skip
    if options.detach:
        client.call("Exec", request)
        return 0
    standard = StandardStreams(interactive=options.interactive, terminal=options.tty, relayed=True)
    wanted = standard.wanted()
    request.streams = [stream for stream, _ in wanted]
    number = client.send("Exec", request, [fd for _, fd in wanted])
    standard.handed_over()
    answer = client.result(number)
    assert isinstance(answer, ExecResponse)
    attachment = Attachment(
        client, answer.exec_id, terminal=options.tty, relay=standard.relay,
        outputs=standard.outputs, container_id=state.id,
    )  # fmt: skip
    attachment.catch_signals()
    try:
        return exit_code(attachment.wait(attachment.ask()))
    except WrongState as error:
        return _after_the_end(store, state.id, error)


def follow(
    client: ControlClient, container_id: str, exec_id: str, signals: bytes, number: int,
    store: Store,
) -> int:  # fmt: skip
    """See to a process that runs, after ``cli.quick``: its exit code.

    ``signals`` came for it already; ``number`` is the call that waits for its end.
    """
    attachment = Attachment(
        client, exec_id, terminal=False, relay=-1, container_id=container_id
    )  # fmt: skip
    attachment.catch_signals()
    attachment.forward(signals)
    try:
        return exit_code(attachment.wait(number))
    except WrongState as error:
        return _after_the_end(store, container_id, error)


def _request(options: Options) -> ExecRequest:
    environment: list[str] = []
    for path in options.env_file:
        environment += values.env_file(read_file(path), path, os.environ)
    environment += values.environment(tuple(options.env), os.environ)
    rows, columns = terminal_size() if options.tty else (0, 0)
    return ExecRequest(
        arguments=list(options.command), environment=environment, cwd=workdir(options),
        user=options.user or "", terminal=options.tty, rows=rows, columns=columns,
    )  # fmt: skip


def _after_the_end(store: Store, container_id: str, error: WrongState) -> int:
    """The container ended while the command ran: the command was killed with it."""
    try:
        state = store.load(container_id)
    except KataError:
        return LOST_EXIT_CODE  # removed as well
    if state.error or state.status != STOPPED:  # not yet: its supervisor is just dying
        tell((state.error or str(error)).partition("\n")[0])
    return state.exit_code or LOST_EXIT_CODE
