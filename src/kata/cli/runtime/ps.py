"""``kata-runtime ps``: the processes of a container.

As JSON, the pids are those of the host's stand-ins: engines look them up in the host's process
list. The table shows the guest's own processes; of ps(1)'s options those are taken that choose
columns of it.
"""

from __future__ import annotations

import time

from kata.cli.runtime.containers import connect, find
from kata.errors import InvalidInput, Unsupported
from kata.runtime.control_api import PidsResponse
from kata.runtime.store import STOPPED
from kata.wire.agent_api import ContainerRequest, ListProcessesResponse
from kata.wire.quickjson import dumps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from kata.cli.parse import Options
    from kata.wire.agent_api import ProcessInfo


_PLAIN = ("uid", "pid", "ppid", "cmd")
_AUX = ("user", "pid", "rss", "stat", "time", "command")
_ALL = ("-e", "-A", "-ef", "-f", "ax", "-ax")  # which processes: all there are, in any case
_LETTERS = {"running": "R", "disk-sleep": "D", "stopped": "T", "zombie": "Z", "idle": "I"}


def run(options: Options) -> int:
    """Print them."""
    if options.format not in (None, "table", "json"):
        raise InvalidInput("invalid format option")
    wanted = columns(options.words[1:])
    store, state = find(options)
    request = ContainerRequest(container_id=state.id)
    client = connect(store, state) if state.status != STOPPED else None
    if options.format == "json":
        standins = client.call("Standins", request) if client else None
        assert standins is None or isinstance(standins, PidsResponse)
        print(dumps(list(standins.pids) if standins else None))
        return 0
    answer = client.call("Processes", request) if client else ListProcessesResponse()
    assert isinstance(answer, ListProcessesResponse)
    print("\n".join(table(answer.processes, wanted, time.time_ns())))
    return 0


def columns(words: Sequence[str]) -> list[tuple[str, str]]:
    """The columns, name and heading, that ps(1)'s words ask for. Raises ``Unsupported``."""
    found: list[tuple[str, str]] = []
    chosen: tuple[str, ...] = _PLAIN
    rest = [word for word in words if word != "--"]
    while rest:
        word = rest.pop(0)
        if word in ("aux", "-aux"):
            chosen = _AUX
        elif word in ("-o", "-eo", "--format", "o"):
            if not rest:
                raise InvalidInput(f'ps: "{word}" needs a list of columns')
            found += _listed(rest.pop(0))
        elif word.startswith(("-o", "--format=")):
            found += _listed(word.removeprefix("--format=").removeprefix("-o"))
        elif word not in _ALL:
            raise Unsupported(
                f'ps: option "{word}"', why="the processes are in a virtual machine",
                hint=f"-ef, aux, and -o with {', '.join(_COLUMNS)}",
            )
    return found or [(name, _COLUMNS[name][0]) for name in chosen]


def _listed(text: str) -> list[tuple[str, str]]:
    found = []
    for part in text.replace(",", " ").split():
        name, given, heading = part.partition("=")
        if name not in _COLUMNS:
            raise Unsupported(f'ps: column "{name}"', hint=f"there are {', '.join(_COLUMNS)}")
        found.append((name, heading if given else _COLUMNS[name][0]))
    return found


def table(
    processes: Sequence[ProcessInfo], wanted: Sequence[tuple[str, str]], now_ns: int
) -> list[str]:
    """Lines: the headings, and a row for each process; ``now_ns`` is the time since the epoch."""
    rows = [[heading for _, heading in wanted]]
    for process in processes:
        timed = {"etime": _elapsed(now_ns - process.started_at_ns)}
        rows.append([timed.get(name) or _COLUMNS[name][1](process) for name, _ in wanted])
    widths = [max(len(row[index]) for row in rows) for index in range(len(wanted))]
    lines = []
    for row in rows:
        cells = [
            cell.rjust(width) if _COLUMNS[name][2] else cell.ljust(width)
            for cell, width, (name, _) in zip(row, widths, wanted, strict=True)
        ]
        lines.append(" ".join(cells).rstrip())
    return lines


def _time(process: ProcessInfo) -> str:
    minutes, seconds = divmod(process.cpu_ns // 1_000_000_000, 60)
    return f"{minutes // 60:02}:{minutes % 60:02}:{seconds:02}"


def _elapsed(nanoseconds: int) -> str:
    seconds = max(nanoseconds, 0) // 1_000_000_000
    days, hours = divmod(seconds // 3600, 24)
    head = f"{days}-{hours:02}:" if days else f"{hours:02}:" if hours else ""
    return f"{head}{seconds // 60 % 60:02}:{seconds % 60:02}"


def _command(process: ProcessInfo) -> str:
    return process.command


def _name(process: ProcessInfo) -> str:
    return process.command.partition(" ")[0].rpartition("/")[2][:15]


def _state(process: ProcessInfo) -> str:
    return _LETTERS.get(process.state, "S")


# name -> heading, what it shows, whether it is a number; as ps(1) has them
_COLUMNS: dict[str, tuple[str, Callable[[ProcessInfo], str], bool]] = {
    "pid": ("PID", lambda p: str(p.pid), True),
    "ppid": ("PPID", lambda p: str(p.parent), True),
    "uid": ("UID", lambda p: str(p.uid), False),
    "user": ("USER", lambda p: str(p.uid), False),
    "comm": ("COMMAND", _name, False),
    "args": ("COMMAND", _command, False),
    "command": ("COMMAND", _command, False),
    "cmd": ("CMD", _command, False),
    "s": ("S", _state, False),
    "stat": ("STAT", _state, False),
    "rss": ("RSS", lambda p: str(p.rss_bytes >> 10), True),
    "time": ("TIME", _time, True),
    "etime": ("ELAPSED", lambda _: "", True),  # needs to know the time
}
