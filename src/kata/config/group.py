"""What a setting is, and a group of them: a class whose attributes are its rows of the table.

The one rule: everything about a setting is said once, in its row. A row is written like a field,
``path: str = text("", "the help")``; on an instance the attribute holds the value.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

ALWAYS, LISTED = "always", "listed"  # may an annotation set it: yes, or when the file lists it


class Check:
    """A rule a value must keep, in words, and the function that says whether it does."""

    __slots__ = ("accepts", "rule")

    def __init__(self, rule: str, accepts: Callable[[Any], bool]) -> None:
        self.rule = rule
        self.accepts = accepts


def between(low: int, high: int) -> Check:
    """Numbers from ``low`` to ``high``."""
    return Check(f"from {low} to {high}", lambda value: low <= value <= high)


def one_of(*words: str) -> Check:
    """One of some words."""
    return Check("one of " + ", ".join(f'"{w}"' for w in words), lambda value: value in words)


ABSOLUTE = Check("an absolute path", lambda value: value.startswith("/"))
ABSOLUTE_OR_EMPTY = Check("an absolute path, or empty", lambda v: not v or v.startswith("/"))
ONE_LINE = Check("without line breaks", lambda v: "\n" not in v and "\0" not in v)
NAMES = Check("names of one word", lambda v: all(n and not set(n) & set(" \t\n/\0") for n in v))
ARGUMENTS = Check("without empty strings", lambda v: all(n and "\0" not in n for n in v))


class Setting:
    """One row: kind, default, help, check, and who besides the file may set it.

    ``toml`` is its name in the file where that is not the attribute's; ``section`` likewise.
    """

    __slots__ = ("annotation", "check", "default", "help", "kind", "name", "section", "toml")

    def __init__(self, kind: str, default: Any, help: str, options: dict[str, Any]) -> None:
        self.kind = kind
        self.default = default
        self.help = help
        self.check: Check | None = options.get("check")
        self.annotation: str = options.get("annotation", "")
        self.toml: str = options.get("toml", "")
        self.name = ""
        self.section = ""

    def problem(self, value: Any) -> str:
        """Why a value will not do, or nothing."""
        if not _KINDS[self.kind](value):
            return f"must be {_ARTICLES[self.kind]}, not {_shown(value)}"
        if self.check is not None and not self.check.accepts(value):
            return f"must be {self.check.rule}, not {_shown(value)}"
        return ""


def _integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


_KINDS: dict[str, Callable[[Any], bool]] = {
    "string": lambda v: isinstance(v, str),
    "integer": _integer,
    "number": lambda v: _integer(v) or isinstance(v, float),
    "boolean": lambda v: isinstance(v, bool),
    "strings": lambda v: isinstance(v, list | tuple) and all(isinstance(i, str) for i in v),
}
_ARTICLES = {
    "string": "a string", "integer": "an integer", "number": "a number",
    "boolean": "true or false", "strings": "a list of strings",
}  # fmt: skip


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return f'"{value}"' if isinstance(value, str) else f"{value}"


def text(default: str, help: str, **options: Any) -> Any:
    """A string."""
    return Setting("string", default, help, options)


def integer(default: int, help: str, **options: Any) -> Any:
    """A whole number."""
    return Setting("integer", default, help, options)


def number(default: float, help: str, **options: Any) -> Any:
    """A number, with or without a fraction."""
    return Setting("number", default, help, options)


def boolean(default: bool, help: str, **options: Any) -> Any:  # noqa: FBT001
    """True or false."""
    return Setting("boolean", default, help, options)


def strings(default: tuple[str, ...], help: str, **options: Any) -> Any:
    """A list of strings; a tuple once read."""
    return Setting("strings", default, help, options)


class Group:
    """Settings of one concern; an instance holds their values and never changes."""

    SECTION = ""
    SETTINGS: dict[str, Setting] = {}
    _record_fields: tuple[str, ...] = ()

    def __init_subclass__(cls) -> None:
        cls.SETTINGS = {n: s for n, s in vars(cls).items() if isinstance(s, Setting)}
        cls._record_fields = tuple(cls.SETTINGS)
        for name, setting in cls.SETTINGS.items():
            setting.name = name
            setting.section = cls.SECTION
            setting.toml = setting.toml or name

    def __init__(self, **values: Any) -> None:
        own = self.__dict__
        for name, setting in self.SETTINGS.items():
            own[name] = setting.default
        for name, value in values.items():
            if name not in self.SETTINGS:
                raise TypeError(f"{type(self).__name__} has no setting {name!r}")
            own[name] = value

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self.__dict__ == other.__dict__

    def __hash__(self) -> int:
        return hash((type(self), *self.__dict__.values()))

    def __repr__(self) -> str:
        inner = ", ".join(f"{n}={v!r}" for n, v in self.__dict__.items())
        return f"{type(self).__name__}({inner})"

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{type(self).__name__} is frozen")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"{type(self).__name__} is frozen")
