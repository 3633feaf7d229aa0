"""Numbers on the command line: seconds, counts, points in time; pure."""

from __future__ import annotations

from time import time_ns

from kata.cli.parse import UsageError

_NS = 1_000_000_000
_UNITS = {"ms": 1_000_000, "s": _NS, "m": 60 * _NS, "h": 3600 * _NS, "d": 86400 * _NS}


def seconds(text: str, option: str) -> int:
    """A number of seconds; raises ``UsageError``."""
    return count(text, option, "a number of seconds")


def count(text: str, option: str, what: str = "a number") -> int:
    """A number that is not negative; raises ``UsageError``."""
    if not text.isdecimal() or len(text) > 9:
        raise UsageError(f'invalid value "{text}" for {option}', why=f"must be {what}")
    return int(text)


def instant(text: str, option: str, now_ns: int | None = None) -> int:
    """A point in time, in nanoseconds since the epoch; raises ``UsageError``.

    RFC 3339 (local time if it names no zone), seconds since the epoch, or how long ago: ``2h30m``.
    """
    now = time_ns() if now_ns is None else now_ns
    ago = _length(text)
    if ago is not None:
        return now - ago
    from datetime import datetime

    try:
        if text.replace(".", "", 1).isdecimal():
            whole, _, rest = text.partition(".")
            return int(whole or "0") * _NS + int(f"{rest:0<9}"[:9])
        parsed = datetime.fromisoformat(text)
        whole_ns = int(parsed.replace(microsecond=0).timestamp()) * _NS
        return whole_ns + parsed.microsecond * 1000
    except (ValueError, OverflowError):
        raise UsageError(
            f'invalid value "{text}" for {option}',
            why="must be a time (2026-01-31T12:00:00), or how long ago (10m, 2h30m)",
        ) from None


def _length(text: str) -> int | None:
    """``1h30m`` in nanoseconds; None if it is no length of time."""
    total, digits, unit = 0, "", ""
    for character in f"{text}|":
        if character.isdecimal() or character == "|":
            if unit:
                if unit not in _UNITS or not digits:
                    return None
                total += int(digits) * _UNITS[unit]
                digits = unit = ""
            digits += character
        else:
            unit += character
    return total if digits == "|" and text else None
