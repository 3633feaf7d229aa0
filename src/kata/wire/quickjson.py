"""JSON by the interpreter's own C scanner and encoder, without importing the ``json`` package.

The package costs 6 ms of start time (it imports ``re`` and ``enum``); the C parts cost nothing.
The one rule: the results are those of ``json.loads`` and of ``json.dumps`` with the compact
separators, byte for byte; input that is not JSON raises ``ValueError``.
"""

from __future__ import annotations

import _json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

_SPACE = " \t\n\r"
_DOCUMENT = "not a JSON document"
_CONSTANTS = {"NaN": float("nan"), "Infinity": float("inf"), "-Infinity": float("-inf")}


class _Context:
    """What the C scanner reads its options from."""

    strict = True
    object_hook = None
    object_pairs_hook = None
    parse_float = float
    parse_int = int
    parse_constant = _CONSTANTS.__getitem__
    memo: dict[str, str] = {}


_context: Any = _Context()
_scan = _json.make_scanner(_context)


def loads(text: str | bytes) -> Any:
    """The value of a JSON document (UTF-8 when bytes). Raises ``ValueError``."""
    if not isinstance(text, str):
        text = text.decode("utf-8")
    start = len(text) - len(text.lstrip(_SPACE))
    try:
        value, end = _scan(text, start)
    except StopIteration:
        raise ValueError(_DOCUMENT) from None
    except SystemError:  # the scanner raises an error of a module it expects to be imported
        return _complain(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if text[end:].strip(_SPACE):
        raise ValueError(f"something follows the JSON document at character {end}")
    return value


def _complain(text: str) -> Any:
    """Let the ``json`` package say what is wrong."""
    import json

    return json.loads(text)


def _unknown(value: object) -> Any:
    raise TypeError(f"a {type(value).__name__} has no JSON form")


def dumps(value: Any, *, indent: int = 0, ensure_ascii: bool = True) -> str:
    """The compact JSON form of a value; with ``indent``, the ``json`` package's readable form."""
    quote = _json.encode_basestring_ascii if ensure_ascii else _json.encode_basestring
    if isinstance(value, str):
        return str(quote(value))
    if isinstance(value, float):
        return _float(value)
    separators = (": ", ", ") if indent else (":", ",")
    encode = _json.make_encoder({}, _unknown, quote, None, *separators, False, False, True)
    if indent:
        return "".join(_indented(value, encode, " " * indent, "\n"))
    return "".join(encode(value, 0))


def _indented(value: Any, encode: Any, step: str, line: str) -> Iterator[str]:
    """The pieces of the readable form; ``line`` begins a line at the depth of ``value``."""
    if not value or not isinstance(value, (dict, list, tuple)):
        yield from encode(value, 0)
        return
    inner = line + step
    if isinstance(value, dict):
        opening, closing = "{", "}"
        items = [("".join(encode({key: 0}, 0))[1:-2], item) for key, item in value.items()]
    else:
        opening, closing = "[", "]"
        items = [("", item) for item in value]
    before = opening
    for key, item in items:
        yield f"{before}{inner}{key}"
        yield from _indented(item, encode, step, inner)
        before = ","
    yield f"{line}{closing}"


def _float(value: float) -> str:
    if value != value or value in (_CONSTANTS["Infinity"], _CONSTANTS["-Infinity"]):  # noqa: PLR0124
        return {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}[repr(value)]
    return repr(value)
