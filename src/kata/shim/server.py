"""The ttRPC server that containerd talks to: a thread for each connection and for each call.

So a ``Wait`` that is pending for days holds up nothing. Errors travel as gRPC codes with a text;
nothing of our own goes beside them.
"""

from __future__ import annotations

import _thread
import os

from kata.errors import (
    UNKNOWN,
    CommandNotExecutable,
    CommandNotFound,
    KataError,
    ProtocolError,
    Unsupported,
)
from kata.linux.fds import receive
from kata.runtime.control import Peer
from kata.wire.ttrpc import RESPONSE, Connection, Request, ResponseMessage, Status, frame

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket
    from collections.abc import Callable
    from typing import Any

    from kata.wire.protobuf import Message
    from kata.wire.ttrpc import Event

    Method = tuple[type[Message], Callable[[Any], Message]]

_RECEIVE = 64 << 10
_MOST_FDS = 8


class Server:
    """Answers the methods of some services on a listening socket."""

    def __init__(self, services: dict[str, dict[str, Method]]) -> None:
        self._services = services
        self._counting = _thread.allocate_lock()
        self._busy = 0

    def listen(self, listener: socket) -> None:
        """Answer from now on, in the background."""
        _thread.start_new_thread(self._accept, (listener,))

    def _accept(self, listener: socket) -> None:
        from _socket import socket as sock

        while True:
            try:
                fd, _ = listener._accept()  # type: ignore[attr-defined]
            except OSError:
                return
            self.adopt(sock(fileno=fd), Connection(), [])

    def adopt(self, sock: socket, connection: Connection, events: list[Event]) -> None:
        """Answer on a connection, in the background; ``events`` have arrived there already."""
        _thread.start_new_thread(self._connection, (sock, connection, events))

    def _connection(self, sock: socket, connection: Connection, events: list[Event]) -> None:
        peer = Peer(sock)
        try:
            self._take(peer, events)
            while True:
                data, fds = receive(sock, _RECEIVE, _MOST_FDS)
                for fd in fds:
                    os.close(fd)  # nobody asked for any
                if not data:
                    break
                self._take(peer, connection.receive(data))
        except (OSError, ProtocolError):
            pass  # it went away, or speaks something else
        peer.release()

    def _take(self, peer: Peer, events: list[Event]) -> None:
        for event in events:
            if not isinstance(event, Request):
                raise ProtocolError("only requests are expected")
            peer.hold()
            self._count(1)
            _thread.start_new_thread(self._answer, (peer, event))

    def _answer(self, peer: Peer, event: Request) -> None:
        try:
            answer = Connection.respond(event.stream, self._call(event).encode())
        except KataError as error:
            answer = failure(event.stream, error)
        except Exception as error:
            from traceback import print_exc

            print_exc()
            answer = failure(event.stream, KataError(f"internal error in the shim: {error!r}"))
        peer.send(answer)
        peer.release()
        self._count(-1)

    def _call(self, event: Request) -> Message:
        method = self._services.get(event.service, {}).get(event.method)
        if method is None:
            raise Unsupported(f'no method "{event.service}/{event.method}"')
        message, handler = method
        return handler(message.decode(event.payload))

    def _count(self, change: int) -> None:
        with self._counting:
            self._busy += change

    @property
    def busy(self) -> int:
        """How many calls are being answered."""
        return self._busy


def failure(stream: int, error: KataError) -> bytes:
    """The answer to a call that failed: a code that containerd knows, and the text."""
    text = f"{error} ({error.hint})" if error.hint else str(error)
    status = Status(code=code_of(error), message=text)
    return frame(stream, RESPONSE, ResponseMessage(status=status).encode())


def code_of(error: KataError) -> int:
    """A program that is not there is no task that is not there."""
    lost = isinstance(error, (CommandNotFound, CommandNotExecutable))
    return UNKNOWN if lost else error.code
