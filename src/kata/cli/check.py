"""``kata check``: what this host can do, and what would mend what it cannot."""

from __future__ import annotations

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
        for item in done:
            for line in lines(item, width):
                print(line)
        print(f"\n{summary(done)}")
    return 0 if check.can_run(done) else 1


def lines(item: Check, width: int) -> list[str]:
    """A check: its verdict, and below it what is wrong and what mends it."""
    verdict = "ok" if item.ok else "MISSING" if item.required else "warning"
    first, *more = [one_line(text) for text in (item.found, item.why) if text] or [""]
    indent = " " * (width + 11)
    shown = [f"{verdict:<7}  {item.name:<{width}}  {first}".rstrip()]
    shown += [indent + text for text in more]
    if item.mend and not item.ok:
        shown.append(f"{indent}mend it: {one_line(item.mend)}")
    return shown


def summary(done: list[Check]) -> str:
    """The last line."""
    missing = [item.name for item in done if item.required and not item.ok]
    lesser = [item.name for item in done if not item.required and not item.ok]
    if missing:
        return f"no container can run on this host: {', '.join(missing)}"
    if lesser:
        return f"containers can run on this host, with less than all: {', '.join(lesser)}"
    return "containers can run on this host"
