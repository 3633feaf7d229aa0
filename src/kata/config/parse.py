"""TOML text to checked values.

The one rule: every fault of a file is found here, and named with its line; what this accepts
needs no further check.
"""

from __future__ import annotations

import re
import tomllib

from kata.config.settings import rows
from kata.errors import InvalidConfig

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from kata.config.group import Setting


def parse(data: bytes, path: str) -> dict[str, dict[str, Any]]:
    """The values of a file by group and attribute. Raises ``InvalidConfig`` for its first fault."""
    try:
        text = data.decode("utf-8")
        document = tomllib.loads(text)
    except UnicodeDecodeError as error:
        raise InvalidConfig(path, why=f"not UTF-8 at byte {error.start}") from None
    except tomllib.TOMLDecodeError as error:
        raise InvalidConfig(path, why=_lower(str(error))) from None
    known = {(s.section, s.toml): (group, s) for group, s in rows()}
    values: dict[str, dict[str, Any]] = {}
    for section, name, value in _flat(document, {s for s, _ in known}, text, path):
        found = known.get((section, name))
        where = f"{path}{_line(text, section, name)}"
        if found is None:
            raise _unknown(where, section, name, known)
        group, setting = found
        problem = setting.problem(value)
        if problem:
            raise InvalidConfig(f'{where}: setting "{section}.{name}"', why=problem)
        values.setdefault(group, {})[setting.name] = (
            tuple(value) if isinstance(value, list) else value
        )
    return values


def _flat(
    document: dict[str, Any], sections: set[str], text: str, path: str
) -> list[tuple[str, str, Any]]:
    """Section, name and value of everything in a document, in order."""
    found: list[tuple[str, str, Any]] = []

    def walk(prefix: str, table: dict[str, Any]) -> None:
        for name, value in table.items():
            below = f"{prefix}.{name}" if prefix else name
            if isinstance(value, dict) and any(f"{s}.".startswith(f"{below}.") for s in sections):
                walk(below, value)
            elif prefix in sections:
                found.append((prefix, name, value))
            else:
                raise _unknown_section(f"{path}{_line(text, prefix, name)}", below, sections)

    walk("", document)
    return found


def _unknown_section(where: str, section: str, sections: set[str]) -> InvalidConfig:
    return InvalidConfig(
        f'{where}: unknown section "{section}"',
        why="there are " + ", ".join(f'"{s}"' for s in sorted(sections)),
        hint=_nearest(section, sorted(sections)),
    )


def _unknown(
    where: str, section: str, name: str, known: dict[tuple[str, str], tuple[str, Setting]]
) -> InvalidConfig:
    names = [n for s, n in known if s == section]
    elsewhere = [s for s, n in known if n == name]
    hint = f'it belongs to "[{elsewhere[0]}]"' if elsewhere else _nearest(name, names)
    return InvalidConfig(
        f'{where}: unknown setting "{section}.{name}"', why="no such setting exists", hint=hint
    )


def _nearest(word: str, words: list[str]) -> str:
    from difflib import get_close_matches

    near = get_close_matches(word, words, n=1)
    return f'did you mean "{near[0]}"?' if near else ""


def _line(text: str, section: str, name: str) -> str:
    """``:LINE`` of a setting or table, or nothing when it is written in an unusual way."""
    here = ""
    whole = f"{section}.{name}" if section else name
    for number, line in enumerate(text.splitlines(), 1):
        if header := re.match(r"\s*\[+\s*([^\]]+?)\s*\]+", line):
            here = re.sub(r"""\s*\.\s*|["']""", lambda m: "." if "." in m[0] else "", header[1])
            if here == whole or here.startswith(f"{whole}."):
                return f":{number}"
        elif (key := re.match(r"""\s*["']?([\w.-]+)["']?\s*=""", line)) and (
            f"{here}.{key[1]}" if here else key[1]
        ) == whole:
            return f":{number}"
    return ""


def _lower(message: str) -> str:
    return message[:1].lower() + message[1:]
