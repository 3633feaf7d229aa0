"""``kata inspect``: what is on disk about a container, and what its supervisor knows."""

from __future__ import annotations

import json
import os

from kata.cli.context import for_each, open_store
from kata.cli.output import print_json, show_facts
from kata.cli.ps import describe
from kata.errors import KataError
from kata.runtime.control import connect
from kata.runtime.control_api import InspectResponse
from kata.runtime.store import STOPPED
from kata.wire.agent_api import Empty

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from kata.cli.parse import Options
    from kata.runtime.store import ContainerState, Store


def run(options: Options) -> int:
    """Print an array with an object for each container that was found."""
    store = open_store(options)
    found: list[dict[str, Any]] = []
    code = for_each(
        options.containers, options, lambda name: found.append(facts(store, store.find(name)))
    )
    if options.format == "table":
        for number, item in enumerate(found):
            if number:
                print()
            show_facts("table", item)
    else:
        print_json(found)
    return code


def facts(store: Store, state: ContainerState) -> dict[str, Any]:
    """Everything about a container; ``sandbox`` is None if it has ended."""
    directory = store.directory(state.id)
    return {
        **describe(state),
        "terminal": state.terminal,
        "auto_remove": state.auto_remove,
        "stop_signal": state.stop_signal,
        "stop_timeout": state.stop_timeout,
        "template": state.template or None,
        "accelerator": state.accelerator or None,
        "directory": directory,
        "log": f"{directory}/log",
        "config": _config(directory),
        "sandbox": _sandbox(directory, state),
    }


def _config(directory: str) -> Any:
    try:
        with open(f"{directory}/config.json", "rb") as file:
            return json.load(file)
    except (OSError, ValueError):
        return None


def _sandbox(directory: str, state: ContainerState) -> Any:
    """What the supervisor says; it may end while we ask."""
    if state.status == STOPPED:
        return None
    try:
        client = connect(f"{os.path.dirname(directory)}/{state.sandbox or state.id}", state.name)
        try:
            answer = client.call("Inspect", Empty())
        finally:
            client.close()
        assert isinstance(answer, InspectResponse)
        return json.loads(answer.sandbox or b"null")
    except (KataError, ValueError):
        return None
