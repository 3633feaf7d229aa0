"""``kata-runtime run``: create and start, then wait for the end unless detached."""

from __future__ import annotations

import os

from kata.cli.attach import Attachment
from kata.cli.runtime.containers import connect
from kata.cli.runtime.create import create, started
from kata.cli.runtime.delete import delete
from kata.cli.streams import StandardStreams
from kata.errors import InvalidInput, KataError, WrongState
from kata.runtime.store import LOST_EXIT_CODE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kata.cli.parse import Options
    from kata.cli.runtime.create import Made


def run(options: Options) -> int:
    """Run a container; gives the exit code of its process."""
    if options.detach or options.console_socket:
        made = create(options)
        _start(made)
        return 0 if options.detach else _wait(made, None, options)
    terminal = _terminal(options)
    standard = StandardStreams(interactive=True, terminal=terminal)
    made = create(options, dict(standard.wanted()))
    standard.handed_over()
    return _wait(made, standard, options)


def _start(made: Made) -> None:
    """Start it; what does not start is not left."""
    try:
        started(made)
    except KataError:
        state = made.store.named(made.state.name)
        if state is not None:
            delete(made.store, state, force=True)
        raise


def _terminal(options: Options) -> bool:
    from kata.cli.runtime.create import read_spec

    return bool(read_spec(os.path.abspath(options.bundle or "."))["process"].get("terminal"))


def _wait(made: Made, standard: StandardStreams | None, options: Options) -> int:
    client = connect(made.store, made.state)
    attachment = Attachment(
        client, "", terminal=made.state.terminal and standard is not None,
        relay=standard.relay if standard else -1, container_id=made.state.id,
    )  # fmt: skip
    attachment.catch_signals()
    number = attachment.ask()
    try:
        if standard is not None:
            _start(made)
        code = attachment.wait(number).exit_code
    except WrongState:
        if made.store.named(made.state.name) is None:
            raise
        code = LOST_EXIT_CODE
    os.waitpid(made.standin.pid, 0)
    if not options.keep:
        state = made.store.named(made.state.name)
        if state is not None:
            try:
                delete(made.store, state, force=True)
            except KataError as error:
                raise InvalidInput(f"cannot delete the container: {error}") from None
    return code
