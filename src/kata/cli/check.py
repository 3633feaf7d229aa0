"""``kata check``: what this host can do, and what would mend what it cannot."""

from __future__ import annotations

import sys
from shutil import get_terminal_size
from textwrap import wrap

from kata.cli.context import configuration
from kata.cli.output import print_json
from kata.cli.text import one_line
from kata.runtime import check

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kata.cli.parse import Options
    from kata.runtime.check import Check


def run(options: Options) -> int:
    """Print every check; gives 0 only if a container can run."""
    done = check.checks(configuration(options))
    if options.format == "json":
        print_json(check.document(done))
    else:
        width = max(len(item.name) for item in done)
        columns = get_terminal_size().columns if sys.stdout.isatty() else 100
        for item in done:
            for line in lines(item, width, columns):
                print(line)
        print(f"\n{summary(done)}")
    return 0 if check.can_run(done) else 1


def lines(item: Check, width: int, columns: int = 80) -> list[str]:
    """A check: its verdict, and beside it what was found, what is wrong, what mends it."""
    verdict = "MISSING" if item.required else "warning"
    if item.ok or not item.tried:
        verdict = "ok" if item.ok else "unknown"
    texts = [item.found, item.why, f"mend it: {item.mend}" if item.mend and not item.ok else ""]
    head = f"{verdict:<7}  {item.name:<{width}}  "
    room = max(20, columns - len(head))
    told = [part for text in texts if text for part in wrap(one_line(text), room)] or [""]
    shown = [head + told[0], *(" " * len(head) + part for part in told[1:])]
    return [line.rstrip() for line in shown]


def summary(done: list[Check]) -> str:
    """The last line."""
    missing = [item.name for item in done if item.required and not item.ok and item.tried]
    lesser = [item.name for item in done if not item.required and not item.ok]
    if missing:
        return f"no container can run on this host: {', '.join(missing)}"
    if lesser:
        return f"containers can run on this host, with less than all: {', '.join(lesser)}"
    return "containers can run on this host"
