"""The reference page of the command line, made from the grammar.

``python3 -m kata.cli.reference`` prints it; a test fails when ``docs/reference/cli.md`` differs.
"""

from __future__ import annotations

from kata.cli import grammar
from kata.cli.help import spelled, usage

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from kata.cli.grammar import Option, Verb

_HEAD = """\
# The command line

`kata [OPTIONS] COMMAND [ARG...]`: options before the command hold for all of it, and are taken
after it too. Options may be written `--name=value` or `--name value`, `-e X` or `-eX`, and short
ones together (`-it`); `--` ends them. In `run` and `exec` whatever follows the first argument
belongs to the command that is run.

This page is generated from the grammar (`make docs`).

## Exit codes

| code | when |
|---|---|
| the process's own | `run` and `exec`, when the process ended by itself |
| 128 + signal | `run` and `exec`, when a signal ended it |
| 125 | `run` and `exec`: it could not be run; every command: an unknown option or a bad value |
| 126, 127 | `run` and `exec`: the program cannot be executed, is not found |
| 1 | every other command: it failed, or was given too few or too many arguments |
| 130, 141 | interrupted; nobody reads the output any more |
"""


def page() -> str:
    """The page, Markdown."""
    lines = [_HEAD, "## Options before the command", "", *_table(grammar.global_options())]
    names = [name for _, members in grammar.SECTIONS for name in members]
    for name in [*names, "version", "help"]:
        members = [n for n in grammar.names() if n == name or n.startswith(f"{name} ")]
        for member in members:
            lines += ["", *_section(grammar.verb(member))]
    lines += ["", "## Other names", "", "| name | stands for |", "|---|---|"]
    lines += [f"| `kata {a}` | `kata {name}` |" for a, name in grammar.ALIASES.items()]
    return "\n".join(lines) + "\n"


def _section(verb: Verb) -> list[str]:
    lines = [f"## kata {verb.name}", "", f"{verb.help}.", "", f"    {usage(verb)}"]
    if verb.note:
        lines += ["", verb.note]
    if verb.options:
        lines += ["", *_table(verb.options)]
    return [*lines, "", f"Example: `{verb.example}`"]


def _table(options: Iterable[Option]) -> list[str]:
    lines = ["| option | meaning |", "|---|---|"]
    for option in options:
        repeated = "; may be given several times" if option.kind == grammar.LIST else ""
        name = spelled(option).strip().replace("|", "\\|")
        lines.append(f"| `{name}` | {option.help}{repeated} |")
    return lines


if __name__ == "__main__":
    print(page(), end="")
