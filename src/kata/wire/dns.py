"""Name queries that are passed on, pure: lengths on streams, failures, and what is under way.

The rule: nothing of a message is believed but its length and its first twelve bytes.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

HEADER = 12
MAX_SIZE = 0xFFFF  # what the two bytes before a message on a stream can say
MOST_QUERIES = 128  # under way in a sandbox
MOST_BYTES = 256 << 10
_ANSWER, _RECURSION_AVAILABLE, _SERVER_FAILURE = 0x80, 0x80, 2


def framed(message: bytes) -> bytes:
    """A message as it goes over a stream of bytes (RFC 1035, 4.2.2)."""
    return len(message).to_bytes(2, "big") + message


def first(buffer: bytearray) -> bytes | None:
    """Take the first message off what a stream brought; ``None`` while it is not whole."""
    if len(buffer) < 2:
        return None
    end = 2 + int.from_bytes(buffer[:2], "big")
    if len(buffer) < end:
        return None
    message = bytes(buffer[2:end])
    del buffer[:end]
    return message


def failure(query: bytes) -> bytes:
    """The answer that says the server failed: the query, so that whoever asked tries the next."""
    flags = bytes((query[2] & 0x79 | _ANSWER, _RECURSION_AVAILABLE | _SERVER_FAILURE))
    return query[:2] + flags + query[4:]


def plausible(query: bytes) -> bool:
    """Whether it has a header that is a query's; what has not is no reason to ask anybody."""
    return HEADER <= len(query) <= MAX_SIZE and not query[2] & _ANSWER


class Ledger:
    """Queries under way by number, bounded in count and in bytes; both ends keep one."""

    def __init__(self) -> None:
        self._entries: dict[int, tuple[int, Any]] = {}
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, number: int, size: int, what: Any) -> bool:
        """Enter one; whether there was room, and the number free."""
        full = len(self._entries) >= MOST_QUERIES or self._bytes + size > MOST_BYTES
        if full or number in self._entries:
            return False
        self._entries[number] = size, what
        self._bytes += size
        return True

    def take(self, number: int) -> Any:
        """Strike one out; what was entered, or ``None``."""
        size, what = self._entries.pop(number, (0, None))
        self._bytes -= size
        return what
