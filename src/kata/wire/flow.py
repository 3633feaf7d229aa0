"""Windowed flow control for one direction of a stream, pure.

The receiver grants bytes; the sender never has more on the way than was granted. A grant is a
data frame in the other direction holding one big-endian 32-bit number. Both ends start from
``WINDOW`` bytes, and grants only ever give back what was sent.
"""

from __future__ import annotations

from kata.errors import ProtocolError

WINDOW = 256 << 10
MAX_CHUNK = 64 << 10  # the largest data frame either end sends


class SendWindow:
    """How much the peer lets us send."""

    def __init__(self, size: int = WINDOW) -> None:
        self._size = size
        self.available = size

    def take(self, wanted: int) -> int:
        """Reserve up to ``wanted`` bytes (at most one chunk); 0 means wait for a grant."""
        granted = min(wanted, self.available, MAX_CHUNK)
        self.available -= granted
        return granted

    def grant(self, payload: bytes) -> None:
        """The peer granted more; raises ``ProtocolError`` if it may not, or if it is no grant."""
        if len(payload) != 4:
            raise ProtocolError("stream: malformed window grant", why=f"{len(payload)} bytes")
        self.available += int.from_bytes(payload, "big")
        if self.available > self._size:
            raise ProtocolError("stream: window granted beyond its size")


class ReceiveWindow:
    """How much the peer may still send us; grants are made when half the window was consumed."""

    def __init__(self, size: int = WINDOW) -> None:
        self._size = size
        self._outstanding = size
        self._consumed = 0

    def received(self, count: int) -> None:
        """Account for bytes that arrived; raises ``ProtocolError`` if they were not granted."""
        self._outstanding -= count
        if self._outstanding < 0:
            raise ProtocolError("stream: peer sent more than its window")

    def consumed(self, count: int) -> bytes:
        """Account for bytes passed on; the payload of a grant to send, or nothing yet."""
        self._consumed += count
        if self._consumed * 2 < self._size:
            return b""
        amount, self._consumed = self._consumed, 0
        self._outstanding += amount
        return amount.to_bytes(4, "big")
