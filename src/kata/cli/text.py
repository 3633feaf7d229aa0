"""Values as people read them: times, sizes, and texts that come from somebody else. Pure."""

from __future__ import annotations

_UNITS = (("year", 31536000), ("month", 2592000), ("week", 604800), ("day", 86400),
          ("hour", 3600), ("minute", 60), ("second", 1))  # fmt: skip


def printable(text: str) -> str:
    """The text without what could drive a terminal: it may come from a guest or an image."""
    if text.isprintable():
        return text
    return "".join([c if c.isprintable() or c == "\n" else _escape(c) for c in text])


def one_line(text: str) -> str:
    """The text, printable, on one line."""
    return " ".join(printable(text).split("\n"))


def shorten(text: str, width: int) -> str:
    """At most ``width`` characters, with an ellipsis where something is missing."""
    return text if len(text) <= width else text[: width - 1] + "…"


def age(since_ns: int, now_ns: int) -> str:
    """How long ago, in the largest fitting unit: ``3 hours ago``; "" for 0, "never"."""
    if not since_ns:
        return ""
    return f"{duration(now_ns - since_ns)} ago"


def duration(ns: int) -> str:
    """A length of time in the largest unit of which there are at least two, or one second."""
    seconds = max(0, ns // 1_000_000_000)
    if seconds == 0:
        return "less than a second"
    for name, size in _UNITS:
        count = seconds // size
        if count >= 2 or (count == 1 and name in ("minute", "second")):
            return f"{count} {name}" + ("s" if count > 1 else "")
    return "1 second"


def size(count: int) -> str:
    """Bytes in decimal units, as Docker and disks have them: ``4.21MB``."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000 or unit == "GB":
            return f"{value:.3g}{unit}" if value < 1000 else f"{value:.0f}{unit}"
        value /= 1000
    raise AssertionError


def moment(ns: int) -> str | None:
    """A time for JSON: RFC 3339, UTC, nanoseconds; None for 0, "never"."""
    if not ns:
        return None
    from time import gmtime, strftime

    seconds, rest = divmod(ns, 1_000_000_000)
    return strftime("%Y-%m-%dT%H:%M:%S", gmtime(seconds)) + f".{rest:09d}Z"


def _escape(character: str) -> str:
    return "  " if character == "\t" else character.encode("unicode_escape").decode()
