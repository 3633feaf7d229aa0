"""What verbs report, as a table or as JSON; ``rich`` draws the table on a terminal if it is there.

The one rule: JSON has stable keys and machine values, always one array or one object; tables are
for people and may change.
"""

from __future__ import annotations

import sys

from kata.cli.text import one_line

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    Row = Callable[[Mapping[str, Any]], Sequence[str]]


def show_list(
    form: str | None, items: Sequence[Mapping[str, Any]], headers: Sequence[str], row: Row
) -> None:
    """Print items: an array of them, or a table with a ``row`` for each."""
    if form == "json":
        print_json(list(items))
    else:
        print_table(headers, [[one_line(cell) for cell in row(item)] for item in items])


def show_facts(form: str | None, facts: Mapping[str, Any], title: str = "") -> None:
    """Print named facts: an object, or a line for each, nested ones with dotted names."""
    if form == "json":
        print_json(facts)
        return
    if title:
        print(title)
    flat = flatten(facts)
    width = max([len(name) for name, _ in flat], default=0)
    for name, value in flat:
        print(f"{name:<{width}}  {one_line(value)}".rstrip())


def print_json(value: Any) -> None:
    """Print a value as indented JSON."""
    from json import dumps

    print(dumps(value, indent=2, ensure_ascii=False))


def flatten(facts: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested mappings as pairs of a dotted name and a text."""
    pairs: list[tuple[str, str]] = []
    for name, value in facts.items():
        if isinstance(value, dict) and value:
            pairs += flatten(value, f"{prefix}{name}.")
        else:
            pairs.append((f"{prefix}{name}", _plain(value)))
    return pairs


def print_table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print aligned columns; on a terminal drawn by ``rich`` where it is installed."""
    if sys.stdout.isatty() and _print_rich(headers, rows):
        return
    for line in plain_table(headers, rows):
        print(line)


def plain_table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Aligned columns, three spaces apart, as lines."""
    table = [headers, *rows]
    widths = [max([len(row[column]) for row in table]) for column in range(len(headers))]
    return ["   ".join(map(_pad, row, widths)).rstrip() for row in table]


def _pad(cell: str, width: int) -> str:
    return f"{cell:<{width}}"


def _plain(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        if not value:
            return "-"
        from json import dumps

        nested = any(isinstance(item, (dict, list, tuple)) for item in value)
        return dumps(value) if nested else " ".join(str(item) for item in value)
    return '""' if value == "" else "-" if value == {} else str(value)


def _print_rich(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> bool:
    from kata.cli.extras import available

    if not available():
        return False
    try:
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text
    except ImportError:
        return False
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="bold")
    for header in headers:
        table.add_column(header, overflow="fold")
    for row in rows:
        table.add_row(*[Text(cell) for cell in row])
    Console().print(table)
    return True
