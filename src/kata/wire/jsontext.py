"""JSON through the interpreter's C scanner and encoder, without what ``json`` imports.

``import json`` costs 7 ms, nearly all of it ``re`` and ``enum``; this module costs nothing and
gives the same values and, where it refuses, ``ValueError``.
"""

from __future__ import annotations

import _json  # type: ignore[import-not-found]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_WHITESPACE = " \t\n\r"


class _Context:
    """What the scanner reads its options from; the same as ``json.JSONDecoder``'s defaults."""

    strict = True
    object_hook = None
    object_pairs_hook = None
    parse_float = float
    parse_int = int
    memo: dict[str, str] = {}

    @staticmethod
    def parse_constant(name: str) -> float:
        raise ValueError(f"{name} is not JSON")


_scan = _json.make_scanner(_Context())


def _refuse(value: object) -> object:
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")


def _encoder(indent: int | None, item_separator: str) -> Any:
    return _json.make_encoder(
        None, _refuse, _json.encode_basestring_ascii, indent, ": ", item_separator,
        False, False, False,
    )  # fmt: skip


_encode = _encoder(None, ", ")


def loads(data: str | bytes) -> Any:
    """The value of a JSON text (UTF-8 if bytes); raises ``ValueError``."""
    text = data if isinstance(data, str) else bytes(data).decode()
    start = 0
    end = len(text)
    while start < end and text[start] in _WHITESPACE:
        start += 1
    try:
        value, at = _scan(text, start)
    except StopIteration as error:
        raise ValueError(f"no JSON value at character {error.value}") from None
    except RecursionError:
        raise ValueError("JSON nested too deeply") from None
    if text[at:].strip(_WHITESPACE):
        raise ValueError(f"extra data after the JSON value at character {at}")
    return value


def dumps(value: Any) -> str:
    """A value as JSON text, ASCII only; tuples become arrays."""
    return "".join(_encode(value, 0))
