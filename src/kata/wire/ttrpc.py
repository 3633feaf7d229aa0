"""ttRPC as a sans-I/O state machine: bytes in, events out; calls in, bytes out.

Source: https://github.com/containerd/ttrpc/blob/main/PROTOCOL.md (10-byte header: length, stream
id, message type, flags; requests, responses and stream data). Clients open odd stream ids.
The same object serves blocking sockets on the host, the selectors loop of the agent, and tests.
"""

from __future__ import annotations

from _struct import Struct

from kata.errors import (
    OK,
    HypervisorError,
    InvalidInput,
    KataError,
    ProtocolError,
    from_wire,
    name_of,
    plain,
)
from kata.wire.protobuf import Message, bytes_, int32, int64, nested, repeated, string
from kata.wire.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeAlias

HEADER = Struct(">IIBB")
MAX_MESSAGE = 4 << 20  # the limit of containerd's implementation
REQUEST, RESPONSE, DATA = 1, 2, 3
REMOTE_CLOSED, REMOTE_OPEN, NO_DATA = 1, 2, 4


class KeyValue(Message):
    """One piece of request metadata."""

    key: str = string(1)
    value: str = string(2)


class RequestMessage(Message):
    """The envelope of a request."""

    service: str = string(1)
    method: str = string(2)
    payload: bytes = bytes_(3)
    timeout_nano: int = int64(4)
    metadata: list[KeyValue] = repeated(nested(KeyValue, 5))


class AnyMessage(Message):
    """``google.protobuf.Any``."""

    type_url: str = string(1)
    value: bytes = bytes_(2)


class Status(Message):
    """``google.rpc.Status``: a gRPC code, a text, and details."""

    code: int = int32(1)
    message: str = string(2)
    details: list[AnyMessage] = repeated(nested(AnyMessage, 3))


class ResponseMessage(Message):
    """The envelope of a response: a status or a payload."""

    status: Status | None = nested(Status, 1)
    payload: bytes = bytes_(2)


class ErrorDetail(Message):
    """Detail of our own errors, so that class, hint and console survive the wire."""

    name: str = string(1)
    hint: str = string(2)
    console: str = string(3)


_DETAIL_URL = "pykata/ErrorDetail"


def status_of(error: KataError) -> Status:
    """The status an error travels as."""
    console = error.console if isinstance(error, HypervisorError) else ""
    detail = ErrorDetail(name=name_of(error), hint=error.hint, console=console).encode()
    return Status(
        code=error.code,
        message=str(error),
        details=[AnyMessage(type_url=_DETAIL_URL, value=detail)],
    )


def error_of(status: Status) -> KataError:
    """The error a status stands for."""
    for item in status.details:
        if item.type_url == _DETAIL_URL:
            detail = ErrorDetail.decode(item.value)
            error = from_wire(status.code, detail.name, status.message, detail.hint)
            if isinstance(error, HypervisorError):
                error.console = plain(detail.console, 1 << 16)
            return error
    return from_wire(status.code, "", status.message, "")


@record
class Request:
    """The peer calls a method; ``streaming`` if it will send data frames on the stream."""

    stream: int
    service: str
    method: str
    payload: bytes
    timeout_ns: int = 0
    streaming: bool = False
    metadata: tuple[tuple[str, str], ...] = ()


@record
class Response:
    """The peer's final answer on a stream; ``error`` instead of ``payload`` if it failed."""

    stream: int
    payload: bytes
    error: KataError | None = None


@record
class Data:
    """Raw bytes on a stream; ``closed`` if the peer sends no more of them."""

    stream: int
    payload: bytes
    closed: bool = False


if TYPE_CHECKING:
    Event: TypeAlias = Request | Response | Data


class Connection:
    """One end of a ttRPC connection; does no I/O and holds no socket."""

    def __init__(self, *, max_message: int = MAX_MESSAGE) -> None:
        self._buffer = bytearray()
        self._next_stream = 1
        self._max_message = max_message

    def receive(self, data: bytes | memoryview[int]) -> list[Event]:
        """Take bytes from the peer, give the events they complete.

        Raises ``ProtocolError`` for an oversized, unknown or malformed message, and for a
        request on a stream that only we may open; the connection is unusable after that.
        """
        buffer = self._buffer
        buffer += data
        events: list[Event] = []
        at = 0
        available = len(buffer)
        with memoryview(buffer) as view:
            while available - at >= HEADER.size:
                length, stream, kind, flags = HEADER.unpack_from(view, at)
                if length > self._max_message:
                    raise _too_large(ProtocolError, length, self._max_message)
                end = at + HEADER.size + length
                if end > available:
                    break
                body = bytes(view[at + HEADER.size : end])
                events.append(self._event(stream, kind, flags, body))
                at = end
        if at:
            del buffer[:at]
        return events

    def _event(self, stream: int, kind: int, flags: int, body: bytes) -> Event:
        if kind == DATA:
            return Data(stream, body, bool(flags & REMOTE_CLOSED))
        if kind == RESPONSE:
            return _response(stream, body)
        if kind == REQUEST:
            if not stream & 1:  # not that it is a new one: a thawed guest's peer counts anew
                raise ProtocolError("ttrpc: request on a stream of ours", why=f"{stream}")
            return _request(stream, flags, body)
        raise ProtocolError("ttrpc: unknown message type", why=f"{kind} on stream {stream}")

    def request(
        self,
        service: str,
        method: str,
        payload: bytes,
        *,
        timeout_ns: int = 0,
        stream: bool = False,
    ) -> tuple[int, bytes]:
        """Open a stream with a request; ``stream=True`` if data frames will follow it.

        Raises ``InvalidInput`` if the peer would refuse it for its size.
        """
        body = RequestMessage(
            service=service, method=method, payload=payload, timeout_nano=timeout_ns
        ).encode()
        number = self._next_stream
        self._next_stream += 2
        return number, frame(number, REQUEST, body, REMOTE_OPEN if stream else REMOTE_CLOSED)

    @staticmethod
    def respond(stream: int, payload: bytes) -> bytes:
        """The answer to a request."""
        body = ResponseMessage(status=Status(), payload=payload).encode()
        return frame(stream, RESPONSE, body)

    @staticmethod
    def fail(stream: int, error: KataError) -> bytes:
        """The answer to a request that failed."""
        return frame(stream, RESPONSE, ResponseMessage(status=status_of(error)).encode())

    @staticmethod
    def data(stream: int, payload: bytes, *, close: bool = False) -> bytes:
        """Raw data on a stream; ``close`` ends our direction of it."""
        flags = REMOTE_CLOSED if close else 0
        if not payload:
            flags |= NO_DATA
        return frame(stream, DATA, payload, flags)


def frame(stream: int, kind: int, body: bytes, flags: int = 0) -> bytes:
    """One message with its header; raises ``InvalidInput`` if no peer would take its size."""
    if len(body) > MAX_MESSAGE:
        raise _too_large(InvalidInput, len(body), MAX_MESSAGE)
    return HEADER.pack(len(body), stream, kind, flags) + body


def _too_large(kind: type[KataError], size: int, limit: int) -> KataError:
    return kind("ttrpc: message too large", why=f"{size} bytes, the limit is {limit}")


def _response(stream: int, body: bytes) -> Response:
    answer = ResponseMessage.decode(body)
    if answer.status is not None and answer.status.code != OK:
        return Response(stream, b"", error_of(answer.status))
    return Response(stream, answer.payload)


def _request(stream: int, flags: int, body: bytes) -> Request:
    asked = RequestMessage.decode(body)
    return Request(
        stream, asked.service, asked.method, asked.payload, asked.timeout_nano,
        bool(flags & REMOTE_OPEN), tuple((m.key, m.value) for m in asked.metadata),
    )  # fmt: skip
