"""QEMU's monitor protocol as a sans-I/O object: bytes in, replies and events out.

The one rule: no socket here. Source: QEMU's docs/interop/qmp-spec.txt. The peer is the VMM, which a
guest may have taken over: what it sends is bounded, and anything odd is ``ProtocolError``.
"""

from __future__ import annotations

from kata.errors import HypervisorError, ProtocolError
from kata.wire import quickjson
from kata.wire.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_MOST_LINE = 1 << 20  # bytes; no answer we ask for comes near


@record
class Reply:
    """The answer to command ``number``; ``error`` is "" if it succeeded."""

    number: int
    value: Any
    error: str = ""


@record
class Event:
    """Something that QEMU reports by itself."""

    name: str
    data: dict[str, Any]


class Qmp:
    """One monitor connection; commands may be sent before anything is received."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._last = 0
        self.version: tuple[int, int, int] = (0, 0, 0)  # from the greeting

    def command(self, name: str, arguments: dict[str, Any] | None = None) -> tuple[int, bytes]:
        """The number of a command, and the bytes to send."""
        self._last += 1
        message: dict[str, Any] = {"execute": name, "id": self._last}
        if arguments:
            message["arguments"] = arguments
        return self._last, quickjson.dumps(message).encode() + b"\n"

    def receive(self, data: bytes) -> list[Reply | Event]:
        """Take bytes, give the replies and events they complete. Raises ``ProtocolError``."""
        self._buffer += data
        *lines, rest = self._buffer.split(b"\n")
        self._buffer = rest
        if len(rest) > _MOST_LINE:
            raise ProtocolError("qmp: a message without end", why=f"{len(rest)} bytes")
        found = []
        for line in lines:
            if line.strip():
                item = self._message(bytes(line))
                if item is not None:
                    found.append(item)
        return found

    def _message(self, line: bytes) -> Reply | Event | None:
        try:
            message = quickjson.loads(line)
            if "event" in message:
                data = message.get("data") or {}
                if isinstance(data, dict):
                    return Event(str(message["event"]), data)
            elif "return" in message and isinstance(message.get("id"), int):
                return Reply(message["id"], message["return"])
            elif "error" in message:
                number = message.get("id", 0)
                text = str(message["error"]["desc"])
                return Reply(number if isinstance(number, int) else 0, None, text)
            elif "QMP" in message:
                version = message["QMP"]["version"]["qemu"]
                self.version = (version["major"], version["minor"], version["micro"])
                return None
        except (ValueError, KeyError, TypeError, AttributeError):
            pass
        raise ProtocolError("qmp: not a message of the protocol", why=repr(line[:200]))


def check(reply: Reply, what: str) -> Any:
    """The value of a reply; raises ``HypervisorError`` if the command failed."""
    if reply.error:
        raise HypervisorError(f"QEMU refused to {what}", why=reply.error)
    return reply.value
