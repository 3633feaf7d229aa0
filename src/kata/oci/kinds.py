"""What a field of a JSON document may hold: small checks that tables are made of.

The one rule: a check gets a value and its path, and adds its faults to a list; it never changes
the value and knows nothing of fields the table does not name.
"""

from __future__ import annotations

from kata.errors import InvalidSpec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeAlias

    Faults: TypeAlias = list[InvalidSpec]
    Kind: TypeAlias = Callable[[Any, str, Faults], None]

_JSON_NAMES = {
    str: "a string", bool: "a boolean", int: "an integer", float: "a number",
    list: "an array", dict: "an object", type(None): "null",
}  # fmt: skip


def wrong(value: Any, path: str, wanted: str, faults: Faults) -> None:
    """Add the fault that a value is of another kind."""
    is_what = _JSON_NAMES.get(type(value), type(value).__name__)
    faults.append(InvalidSpec(path, f"must be {wanted}, not {is_what}"))


def string(value: Any, path: str, faults: Faults) -> None:
    """Any string; the kernel ends its strings at a NUL, so there must be none."""
    if type(value) is not str:
        wrong(value, path, "a string", faults)
    elif "\0" in value:
        faults.append(InvalidSpec(path, "must not contain a NUL character"))


def filled(value: Any, path: str, faults: Faults) -> None:
    """A string that is not empty."""
    string(value, path, faults)
    if value == "":
        faults.append(InvalidSpec(path, "must not be empty"))


def absolute(value: Any, path: str, faults: Faults) -> None:
    """An absolute path."""
    string(value, path, faults)
    if type(value) is str and not value.startswith("/"):
        faults.append(InvalidSpec(path, f'must be an absolute path, not "{value}"'))


def boolean(value: Any, path: str, faults: Faults) -> None:
    """True or false."""
    if type(value) is not bool:
        wrong(value, path, "a boolean", faults)


def anything(value: Any, path: str, faults: Faults) -> None:
    """Whatever there is."""


def integer(low: int, high: int) -> Kind:
    """A whole number from ``low`` to ``high``."""

    def check(value: Any, path: str, faults: Faults) -> None:
        if type(value) is not int:
            wrong(value, path, "an integer", faults)
        elif not low <= value <= high:
            faults.append(InvalidSpec(path, f"must be from {low} to {high}, not {value}"))

    return check


int32 = integer(-(1 << 31), (1 << 31) - 1)
int64 = integer(-(1 << 63), (1 << 63) - 1)
uint16 = integer(0, (1 << 16) - 1)
uint32 = integer(0, (1 << 32) - 1)
uint64 = integer(0, (1 << 64) - 1)
# runc's bounds; above all, the kernel reads 4294967295 as "stay who you are", which is root
user_id = integer(0, (1 << 31) - 1)


def at_most(most: int) -> Kind:
    """A string of not more than so many bytes."""

    def check(value: Any, path: str, faults: Faults) -> None:
        string(value, path, faults)
        if type(value) is str and len(value.encode(errors="replace")) > most:
            faults.append(InvalidSpec(path, f"must not be longer than {most} bytes"))

    return check


def one_of(*words: str) -> Kind:
    """One of some strings."""
    allowed = frozenset(words)

    def check(value: Any, path: str, faults: Faults) -> None:
        if type(value) is not str:
            wrong(value, path, "a string", faults)
        elif value not in allowed:
            faults.append(InvalidSpec(path, f'unknown value "{value}"'))

    return check


def matching(rule: str, accepts: Callable[[str], bool]) -> Kind:
    """A string for which a function says yes; ``rule`` says what it wants."""

    def check(value: Any, path: str, faults: Faults) -> None:
        if type(value) is not str:
            wrong(value, path, "a string", faults)
        elif not accepts(value):
            faults.append(InvalidSpec(path, f'must be {rule}, not "{value}"'))

    return check


def array(kind: Kind, *, least: int = 0) -> Kind:
    """An array whose every element is of a kind."""

    def check(value: Any, path: str, faults: Faults) -> None:
        if type(value) is not list:
            wrong(value, path, "an array", faults)
            return
        if len(value) < least:
            faults.append(InvalidSpec(path, "must not be empty"))
        for index, element in enumerate(value):
            kind(element, f"{path}[{index}]", faults)

    return check


def strings(value: Any, path: str, faults: Faults) -> None:
    """An array of strings; the quick way for the commonest kind."""
    if type(value) is not list:
        wrong(value, path, "an array", faults)
        return
    for index, element in enumerate(value):
        if type(element) is not str or "\0" in element:
            string(element, f"{path}[{index}]", faults)


def mapping(kind: Kind) -> Kind:
    """An object whose keys are free and whose every value is of a kind."""

    def check(value: Any, path: str, faults: Faults) -> None:
        if type(value) is not dict:
            wrong(value, path, "an object", faults)
            return
        for key, element in value.items():
            kind(element, f'{path}["{key}"]', faults)

    return check


def table(fields: dict[str, Kind], *required: str) -> Kind:
    """An object with known fields; unknown ones are left alone, null counts as absent."""

    def check(value: Any, path: str, faults: Faults) -> None:
        if type(value) is not dict:
            wrong(value, path, "an object", faults)
            return
        prefix = f"{path}." if path else ""
        for name, element in value.items():
            kind = fields.get(name)
            if kind is not None and element is not None:
                kind(element, prefix + name, faults)
        for name in required:
            if value.get(name) is None:
                faults.append(InvalidSpec(prefix + name, "is missing"))

    return check
