"""Streams of CRI: exec, attach and port-forward over a WebSocket, as Kubernetes lays them down.

The one rule: one channel a byte: the first of each message says which. Exec and attach have
standard input, output, error, the status and sizes as channels 0 to 4; port-forward has two for
each port, data and error, whose first message each is the port's number.
"""

from __future__ import annotations

import json
import select
import struct
import time
from typing import TYPE_CHECKING, Self
from urllib.parse import urlsplit

import websocket

if TYPE_CHECKING:
    from support.place import Place

PROTOCOL = "v4.channel.k8s.io"
STDIN, STDOUT, STDERR, STATUS, RESIZE = range(5)


class Stream:
    """A connection to the address that CRI gave; use it as a context."""

    def __init__(self, place: Place, url: str) -> None:
        parts = urlsplit(url)
        self._socket = place.connect(parts.port, host=parts.hostname)
        self._socket.settimeout(30)
        self._web = websocket.create_connection(
            url.replace("http", "ws", 1), socket=self._socket, subprotocols=[PROTOCOL], timeout=30
        )
        self.seen: dict[int, bytes] = {}
        self.open = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Go away, in order."""
        self.open = False
        self._web.shutdown()
        self._socket.close()

    def send(self, data: bytes, channel: int = STDIN) -> None:
        """Send on a channel."""
        self._web.send_binary(bytes([channel]) + data)

    def resize(self, columns: int, rows: int) -> None:
        """Change the size of the terminal."""
        self.send(json.dumps({"Width": columns, "Height": rows}).encode(), RESIZE)

    def _take(self, seconds: float) -> None:
        if not select.select([self._socket], [], [], max(0, seconds))[0]:
            return
        code, data = self._web.recv_data()
        if code == websocket.ABNF.OPCODE_CLOSE:
            self.open = False
        elif data:
            self.seen[data[0]] = self.seen.get(data[0], b"") + data[1:]

    def expect(self, text: bytes, channel: int = STDOUT, timeout: float = 30) -> bytes:
        """Wait for a text on a channel; gives what came before it, and forgets both."""
        deadline = time.monotonic() + timeout
        while text not in self.seen.get(channel, b""):
            left = deadline - time.monotonic()
            assert left > 0 and self.open, f"{text!r} did not come; seen: {self.seen!r}"  # noqa: PT018
            self._take(left)
        before, _, self.seen[channel] = self.seen[channel].partition(text)
        return before

    def rest(self, timeout: float = 30) -> bytes:
        """Read to the end; gives what came on standard output (or of the first port)."""
        deadline = time.monotonic() + timeout
        while self.open:
            assert time.monotonic() < deadline, f"it does not end; seen: {self.seen!r}"
            self._take(deadline - time.monotonic())
        return self.seen.get(STDOUT, b"")

    def ports(self, count: int) -> list[int]:
        """Read the first message of each channel: the number of its port, twice a port."""
        wanted = range(2 * count)
        deadline = time.monotonic() + 30
        while any(len(self.seen.get(channel, b"")) < 2 for channel in wanted):
            assert time.monotonic() < deadline, f"no ports; seen: {self.seen!r}"
            self._take(deadline - time.monotonic())
        numbers = [struct.unpack("<H", self.seen[channel][:2])[0] for channel in wanted]
        for channel in wanted:
            self.seen[channel] = self.seen[channel][2:]
        assert numbers[::2] == numbers[1::2]
        return numbers[::2]

    def code(self) -> int:
        """Read to the end; the exit code that the status tells."""
        self.rest()
        status = json.loads(self.seen[STATUS])
        if status["status"] == "Success":
            return 0
        [cause] = status["details"]["causes"]
        assert cause["reason"] == "ExitCode"
        return int(cause["message"])
