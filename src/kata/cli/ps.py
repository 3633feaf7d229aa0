"""``kata ps``: the containers, newest first."""

from __future__ import annotations

import time

from kata.cli.context import list_states, open_store
from kata.cli.output import show_list
from kata.cli.parse import UsageError, must_be
from kata.cli.text import age, duration, moment, shorten
from kata.image.reference import familiar
from kata.runtime.store import STOPPED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from kata.cli.parse import Options
    from kata.runtime.store import ContainerState

HEADERS = ("CONTAINER ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "NAMES")
FILTERS = ("id", "name", "status", "label", "exited")
_ID = 12
_WIDTHS = (32, 20)  # of image and command


def run(options: Options) -> int:
    """List containers."""
    wanted = parse_filters(options.filter)
    states = [s for s in list_states(open_store(options)) if matches(s, wanted)]
    if not options.all and "status" not in wanted and "exited" not in wanted:
        states = [s for s in states if s.status != STOPPED]
    if options.quiet and options.format != "json":
        for state in states:
            print(state.id if options.no_trunc else state.id[:_ID])
        return 0
    now = time.time_ns()
    show_list(
        options.format,
        [describe(state) for state in states],
        HEADERS,
        lambda item: row(item, now, whole=options.no_trunc),
    )
    return 0


def describe(state: ContainerState) -> dict[str, Any]:
    """A container as a JSON object."""
    return {
        "id": state.id,
        "name": state.name,
        "image": state.image,
        "command": list(state.command),
        "status": state.status,
        "exit_code": state.exit_code if state.status == STOPPED else None,
        "error": state.error,
        "oom_killed": state.oom_killed,
        "created": moment(state.created_ns),
        "started": moment(state.started_ns),
        "finished": moment(state.finished_ns),
        "created_ns": state.created_ns,
        "started_ns": state.started_ns,
        "finished_ns": state.finished_ns,
        "pid": state.pid or None,
        "vmm_pid": state.vmm_pid or None,
        "memory_mib": state.memory_mib,
        "vcpus": state.vcpus,
        "labels": dict(state.labels),
    }


def row(item: Mapping[str, Any], now_ns: int, *, whole: bool = False) -> Sequence[str]:
    """A container as a line of the table."""
    command = '"' + " ".join(item["command"]) + '"'
    return (
        item["id"] if whole else item["id"][:_ID],
        item["image"] if whole else shorten(familiar(item["image"]), _WIDTHS[0]),
        command if whole else shorten(command, _WIDTHS[1]),
        age(item["created_ns"], now_ns),
        status_text(item, now_ns),
        item["name"],
    )


def status_text(item: Mapping[str, Any], now_ns: int) -> str:
    """``Up 3 minutes``, ``Exited (1) 2 hours ago``: the status in Docker's words."""
    status = item["status"]
    if status == STOPPED:
        return f"Exited ({item['exit_code']}) {age(item['finished_ns'], now_ns)}".rstrip()
    if status in ("running", "paused"):
        up = f"Up {duration(now_ns - item['started_ns'])}" if item["started_ns"] else "Up"
        return f"{up} (Paused)" if status == "paused" else up
    return str(status).capitalize()


def parse_filters(words: Sequence[str]) -> dict[str, list[str]]:
    """``KEY=VALUE`` words by key; raises ``UsageError``."""
    wanted: dict[str, list[str]] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or key not in FILTERS:
            raise UsageError(
                f'invalid filter "{word}"',
                why=f"{must_be(FILTERS)}, then =VALUE",
                hint="kata ps -a --filter status=stopped",
            )
        wanted.setdefault(key, []).append("stopped" if value == "exited" else value)
    return wanted


def matches(state: ContainerState, wanted: Mapping[str, Sequence[str]]) -> bool:
    """Whether a container fulfils one value of each key (each value, for labels)."""
    tests: dict[str, Callable[[str], bool]] = {
        "id": state.id.startswith,
        "name": lambda value: value in state.name,
        "status": lambda value: value == state.status,
        "exited": lambda value: state.status == STOPPED and value == str(state.exit_code),
    }
    labels = dict(state.labels)
    for key, values in wanted.items():
        if key == "label":
            if not all(_has_label(labels, value) for value in values):
                return False
        elif not any(tests[key](value) for value in values):
            return False
    return True


def _has_label(labels: Mapping[str, str], wanted: str) -> bool:
    key, equals, value = wanted.partition("=")
    return key in labels and (not equals or labels[key] == value)
