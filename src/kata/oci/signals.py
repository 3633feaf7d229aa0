"""Signals by name and number, as the kernel has them on x86-64.

The one rule: the table stands here, so that nothing imports ``signal`` (and ``enum``) for it.
"""

from __future__ import annotations

from kata.errors import InvalidInput

_NAMES = (
    "HUP INT QUIT ILL TRAP ABRT BUS FPE KILL USR1 SEGV USR2 PIPE ALRM TERM STKFLT CHLD CONT STOP "
    "TSTP TTIN TTOU URG XCPU XFSZ VTALRM PROF WINCH IO PWR SYS"
)
NUMBERS: dict[str, int] = {name: i for i, name in enumerate(_NAMES.split(), 1)}
_ALIASES = {"IOT": 6, "CLD": 17, "POLL": 29, "UNUSED": 31}
_RTMIN, _RTMAX = 34, 64  # as the C library counts: it keeps two for itself


def number(text: str) -> int:
    """A signal by number (``9``) or name (``KILL``, ``SIGKILL``, ``sigkill``, ``RTMIN+3``).

    Raises ``InvalidInput`` if there is none such.
    """
    if text.isdecimal() and text.isascii():
        if 0 < int(text) <= _RTMAX:
            return int(text)
    else:
        name = text.upper().removeprefix("SIG")
        found = NUMBERS.get(name) or _ALIASES.get(name) or _real_time(name)
        if found:
            return found
    raise InvalidInput(f'invalid signal: "{text}"', why="no such name or number")


def name(signal: int) -> str:
    """A signal's name without ``SIG``; real-time ones as ``RTMIN+n``, unknown ones as number."""
    for known, value in NUMBERS.items():
        if value == signal:
            return known
    if _RTMIN <= signal <= _RTMAX:
        return f"RTMIN+{signal - _RTMIN}" if signal > _RTMIN else "RTMIN"
    return str(signal)


def _real_time(text: str) -> int:
    for base, start, sign in (("RTMIN", _RTMIN, "+"), ("RTMAX", _RTMAX, "-")):
        if text == base:
            return start
        offset = text.removeprefix(base + sign)
        if offset != text and offset.isdecimal() and offset.isascii():
            value = start + int(sign + offset)
            return value if _RTMIN <= value <= _RTMAX else 0
    return 0
