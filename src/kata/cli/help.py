"""Help, rendered from the grammar: ``--help`` fits a screen of 80 x 24, ``kata help`` tells all."""

from __future__ import annotations

from kata.cli import grammar
from kata.cli.grammar import ANY, ONE, OPTIONAL, REST, SOME, Argument, Option, Verb

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from kata.cli.parse import Options

WIDTH = 80
HEIGHT = 23  # a screen has 24 lines, and the prompt needs one
_TITLE = "Run containers, each in a virtual machine of its own"
_EXAMPLE = "kata run -it debian:12 sh"


def run(options: Options) -> int:
    """``kata help [VERB...]``."""
    name = " ".join(options.words)
    if not name:
        print(overview(described=True), end="")
        return 0
    if name in grammar.GROUPS:
        print(group(name), end="")
        return 0
    name = grammar.ALIASES.get(name, name)
    if not grammar.has(name):
        from kata.cli.unknown import unknown_verb

        raise unknown_verb(name)
    print(full(grammar.verb(name)), end="")
    return 0


def show_brief(verb: Verb) -> int:
    """``kata VERB --help``."""
    print(brief(verb), end="")
    return 0


def show_overview() -> int:
    """``kata --help``."""
    print(overview(), end="")
    return 0


def overview(*, described: bool = False) -> str:
    """All verbs, a line each; with the global options in words if ``described``."""
    lines = [f"{'Usage: kata [OPTIONS] COMMAND [ARG...]':<50}(kata help COMMAND tells more)"]
    lines.append(f"{_TITLE}: {_EXAMPLE}")
    for title, members in grammar.SECTIONS:
        lines.append(f"{title}:")
        lines += [f"  {_heading(name):<12} {_summary(name)}" for name in members]
    options = _with_help(grammar.global_options(), version=True)
    if described:
        lines += ["Options:", *_describe(options)]
    else:
        lines += _listed(options, "Options:", " " * 8)
    return _text(lines)


def group(name: str) -> str:
    """The verbs of a group, a line each."""
    members = [n for n in grammar.names() if n.startswith(f"{name} ")]
    verbs = [grammar.verb(member) for member in members]
    lines = [f"Usage: kata {name} COMMAND", "", f"{grammar.GROUPS[name]}.", "", "Commands:"]
    lines += [f"  {verb.name.split()[1]:<12} {verb.help}" for verb in verbs]
    lines += ["", "Examples:"]
    lines += [f"  {verb.example}" for verb in verbs]
    return _text(lines)


def full(verb: Verb) -> str:
    """A verb with every option described, under headings if there are many."""
    lines = [*_head(verb), ""]
    headings: dict[str, list[Option]] = {}
    for option in _with_help(verb.options):
        headings.setdefault(option.group, []).append(option)
    for heading, options in headings.items():
        lines.append(f"{heading} options:" if heading else "Options:")
        lines += [*_describe(options), ""]
    lines += ["Example:", f"  {verb.example}"]
    return _text(lines)


def brief(verb: Verb) -> str:
    """A verb on one screen: what does not fit is named by group, not described."""
    text = full(verb)
    if text.count("\n") <= HEIGHT:
        return text
    lines = [*_head(verb), f"Example: {verb.example}", ""]
    lines += _describe([o for o in verb.options if not o.group])
    groups: dict[str, list[Option]] = {}
    for option in verb.options:
        if option.group:
            groups.setdefault(option.group, []).append(option)
    lines.append(f'More, described by "kata help {verb.name}":')
    for heading, options in groups.items():
        lines += _listed(options, f"  {heading + ':':<9}", " " * 11, values=False)
    return _text(lines)


def usage(verb: Verb) -> str:
    """The usage line, from the grammar unless the verb has one in words."""
    if verb.usage:
        return f"kata {verb.name} {verb.usage}"
    parts = ["[OPTIONS]"] if verb.options else []
    parts += [_argument(argument) for argument in verb.arguments]
    return " ".join(["kata", verb.name, *parts])


def spelled(option: Option) -> str:
    """``-e, --env KEY[=VALUE]``."""
    short = f"-{option.short}, " if option.short else "    "
    value = f" {option.metavar}" if option.metavar else ""
    return f"{short}--{option.name}{value}"


def _head(verb: Verb) -> list[str]:
    lines = [f"Usage: {usage(verb)}", f"{verb.help}."]
    return lines + (verb.note.split("\n") if verb.note else [])


def _argument(argument: Argument) -> str:
    name = argument.metavar
    if argument.choices:
        name = "|".join(argument.choices)
    forms = {ONE: name, OPTIONAL: f"[{name}]", SOME: f"{name}...", ANY: f"[{name}...]"}
    forms[REST] = f"[{name} [ARG...]]"
    return forms[argument.count]


def _with_help(options: Iterable[Option], *, version: bool = False) -> list[Option]:
    found = list(options)
    short = "" if any(option.short == "h" for option in found) else "h"
    if version:
        found.append(Option("version", "v", "", grammar.FLAG, "print the version"))
    return [*found, Option("help", short, "", grammar.FLAG, "print this help")]


def _describe(options: Iterable[Option]) -> list[str]:
    """An aligned line for each option; help that is too long continues below itself."""
    options = list(options)
    width = min(32, max([len(spelled(option)) for option in options]))
    lines = []
    for option in options:
        left = spelled(option)
        first, *more = _wrap(option.help, WIDTH - width - 5)
        lines.append(f"  {left:<{width}}  {first}")
        lines += [" " * (width + 4) + line for line in more]
    return lines


def _listed(
    options: Iterable[Option], first: str, indent: str, *, values: bool = True
) -> list[str]:
    """The options' names only, as many to a line as fit."""
    words = [
        f"--{option.name}" + (f" {option.metavar}" if values and option.metavar else "")
        for option in options
    ]
    lines = [first]
    for word in words:
        if len(lines[-1]) + len(word) + 1 >= WIDTH:
            lines.append(indent)
        lines[-1] += f" {word}"
    return lines


def _wrap(text: str, width: int) -> list[str]:
    lines = [""]
    for word in text.split():
        if lines[-1] and len(lines[-1]) + 1 + len(word) > width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return lines


def _heading(name: str) -> str:
    return f"{name} ..." if name in grammar.GROUPS else name


def _summary(name: str) -> str:
    if name in grammar.GROUPS:
        members = [n.split()[1] for n in grammar.names() if n.startswith(f"{name} ")]
        return f"{grammar.GROUPS[name]}: {'|'.join(members)}"
    return grammar.verb(name).help


def _text(lines: list[str]) -> str:
    return "\n".join(line.rstrip() for line in lines) + "\n"
