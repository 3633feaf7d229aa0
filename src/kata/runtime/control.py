"""The control socket of a supervisor: its server, and the client of command lines.

Only root reaches the socket (its directory is 0700). The client does no threads: it can wait for
an answer, or be polled beside a terminal.
"""

from __future__ import annotations

import _thread
import os
import time
from _socket import AF_UNIX, SCM_RIGHTS, SHUT_RDWR, SOCK_CLOEXEC, SOCK_STREAM, SOL_SOCKET, socket

from kata.errors import HostError, KataError, NotFound, ProtocolError, Unsupported, WrongState
from kata.wire.ttrpc import Connection, Request, Response

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from kata.wire.protobuf import Message

    Handler = Callable[[Any, list[int]], Message]

SERVICE = "kata.Control"
_MAX_FDS = 8
_RECEIVE = 64 << 10
_CMSG_CLOEXEC = 0x40000000  # MSG_CMSG_CLOEXEC


def send_with_fds(sock: socket, data: bytes, fds: Sequence[int]) -> None:
    """Send all of ``data``, the descriptors with its first byte."""
    if fds:
        rights = b"".join(fd.to_bytes(4, "little") for fd in fds)
        data = data[sock.sendmsg([data], [(SOL_SOCKET, SCM_RIGHTS, rights)]) :]
    if data:  # to send nothing is an error where the peer has read all it wants and hung up
        sock.sendall(data)


def receive_with_fds(sock: socket) -> tuple[bytes, list[int]]:
    """Receive some bytes and the descriptors that came with them (close-on-exec)."""
    data, ancillary, _, _ = sock.recvmsg(_RECEIVE, 16 + _MAX_FDS * 4, _CMSG_CLOEXEC)
    fds = [
        int.from_bytes(raw[at : at + 4], "little")
        for level, kind, raw in ancillary
        if level == SOL_SOCKET and kind == SCM_RIGHTS
        for at in range(0, len(raw) - 3, 4)
    ]
    return data, fds


class Pinned:
    """A path to a directory that fits a socket address however long the directory's name is."""

    def __init__(self, directory: str) -> None:
        self._fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self.path = f"/proc/self/fd/{self._fd}"

    def close(self) -> None:
        """Let go of the directory."""
        os.close(self._fd)


class Peer:
    """A connection shared by the threads that answer its calls; the last one closes it."""

    def __init__(self, sock: socket) -> None:
        self._sock = sock
        self._lock = _thread.allocate_lock()
        self._holders = 1

    def hold(self) -> None:
        """One more thread may answer."""
        with self._lock:
            self._holders += 1

    def release(self) -> None:
        """It is done; the last one closes."""
        with self._lock:
            self._holders -= 1
            if not self._holders:
                self._sock.close()

    def send(self, data: bytes) -> None:
        """Send an answer, if anybody still wants it."""
        with self._lock:
            try:
                self._sock.sendall(data)
            except OSError:
                pass  # nobody waits for the answer any more


class ControlServer:
    """Answers control calls; every connection and every call has a thread of its own."""

    def __init__(self, handlers: dict[str, Handler]) -> None:
        self.handlers = handlers
        self._listener: socket | None = None
        self._busy = 0
        self._counting = _thread.allocate_lock()

    def listen(self, directory: str) -> None:
        """Listen on ``control.sock`` in a directory; raises ``HostError``."""
        listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC)
        pinned = Pinned(directory)
        try:
            listener.bind(f"{pinned.path}/control.sock")
        except OSError as error:
            raise HostError(
                f'cannot make a socket in "{directory}"', why=error.strerror or str(error)
            ) from None
        finally:
            pinned.close()
        listener.listen(64)
        self._listener = listener
        _thread.start_new_thread(self._accept, (listener,))

    def _accept(self, listener: socket) -> None:
        while True:
            try:
                fd, _ = listener._accept()  # type: ignore[attr-defined]
            except OSError:
                return
            self.serve(socket(fileno=fd))

    def serve(self, sock: socket, on_close: Callable[[], None] | None = None) -> None:
        """Answer calls on one connection, in the background; tell when the peer hung up."""
        _thread.start_new_thread(self._connection, (sock, on_close))

    def _connection(self, sock: socket, on_close: Callable[[], None] | None) -> None:
        peer = Peer(sock)
        connection = Connection()
        passed: list[int] = []
        try:
            while True:
                data, fds = receive_with_fds(sock)
                passed += fds
                if not data:
                    break
                for event in connection.receive(data):
                    if not isinstance(event, Request):
                        raise ProtocolError("control: only requests are expected")
                    taken, passed = passed, []
                    self._count(1)
                    peer.hold()
                    _thread.start_new_thread(self._answer, (peer, event, taken))
        except (OSError, ProtocolError):
            pass  # the client went away or is not one of ours
        for fd in passed:
            os.close(fd)
        peer.release()
        if on_close is not None:
            on_close()

    def _answer(self, peer: Peer, event: Request, fds: list[int]) -> None:
        try:
            answer = Connection.respond(event.stream, self._call(event, fds).encode())
        except KataError as error:
            answer = Connection.fail(event.stream, error)
        except Exception as error:
            failure = KataError(f"internal error in the supervisor: {error!r}")
            answer = Connection.fail(event.stream, failure)
        peer.send(answer)
        peer.release()
        self._count(-1)

    def _call(self, event: Request, fds: list[int]) -> Message:
        from kata.runtime.control_api import METHODS

        handler = self.handlers.get(event.method)
        if handler is None or event.service != SERVICE:
            for fd in fds:
                os.close(fd)
            raise Unsupported(f'unknown control method "{event.method}"')
        return handler(METHODS[event.method][0].decode(event.payload), fds)

    def _count(self, change: int) -> None:
        with self._counting:
            self._busy += change

    def drain(self, seconds: float) -> None:
        """Wait until every call that arrived was answered, at most ``seconds``."""
        end = time.monotonic() + seconds
        while self._busy and time.monotonic() < end:
            time.sleep(0.001)

    def close(self) -> None:
        """Accept no more connections."""
        if self._listener is not None:
            try:
                self._listener.shutdown(SHUT_RDWR)
            except OSError:
                pass
            self._listener.close()


class ControlClient:
    """One connection to a supervisor."""

    def __init__(self, sock: socket, sent: Sequence[str] = ()) -> None:
        """``sent`` are the methods that were called on it already, in order."""
        self._sock = sock
        self._connection = Connection()
        self._methods: dict[int, str] = {}
        self._answers: dict[int, Response] = {}
        self.closed = False
        for method in sent:
            self._methods[self._connection.request(SERVICE, method, b"")[0]] = method

    def fileno(self) -> int:
        """The descriptor to poll for answers."""
        return self._sock.fileno()

    def send(self, method: str, request: Message, fds: Sequence[int] = ()) -> int:
        """Send a call; gives the number to ask for its answer with. Raises ``WrongState``."""
        number, data = self._connection.request(SERVICE, method, request.encode())
        self._methods[number] = method
        try:
            send_with_fds(self._sock, data, fds)
        except OSError:
            self.closed = True
            raise lost() from None
        return number

    def pump(self) -> None:
        """Take what has arrived (blocks if nothing has); sets ``closed`` at the end."""
        try:
            data = self._sock.recv(_RECEIVE)
        except OSError:
            data = b""
        if not data:
            self.closed = True
        self.feed(data)

    def feed(self, data: bytes) -> None:
        """Take what was received for us elsewhere."""
        for event in self._connection.receive(data):
            if isinstance(event, Response):
                self._answers[event.stream] = event

    def answered(self, number: int) -> bool:
        """Whether ``result`` would not wait."""
        return number in self._answers

    def result(self, number: int) -> Message:
        """The answer to a call; raises the supervisor's error, or ``WrongState`` if it is gone."""
        from kata.runtime.control_api import METHODS

        answer = self._answer(number)
        return METHODS[self._methods.pop(number)][1].decode(answer.payload)

    def _answer(self, number: int) -> Response:
        while number not in self._answers:
            if self.closed:
                raise lost()
            self.pump()
        answer = self._answers.pop(number)
        if answer.error is not None:
            raise answer.error
        return answer

    def tell(self, method: str, request: Message, fds: Sequence[int] = ()) -> None:
        """Call and wait, for nothing but that it is done; loads no table of the API."""
        self._answer(self.send(method, request, fds))

    def ask(
        self, method: str, request: Message, answer: type[Message], fds: Sequence[int] = ()
    ) -> Message:
        """Call and wait, for an answer of this type; loads no table of the API."""
        return self.take(self.send(method, request, fds), answer)

    def take(self, number: int, answer: type[Message]) -> Message:
        """The answer to a call, of this type; raises as ``result``."""
        return answer.decode(self._answer(number).payload)

    def call(self, method: str, request: Message, fds: Sequence[int] = ()) -> Message:
        """Call and wait."""
        return self.result(self.send(method, request, fds))

    def close(self) -> None:
        """Hang up."""
        self._sock.close()


def lost() -> KataError:
    """The error of a supervisor that vanished."""
    return WrongState(
        "the supervisor of the container is gone",
        why="it was killed, or the container was removed",
        hint="kata gc removes what it left",
    )


def connect(directory: str, name: str) -> ControlClient:
    """Connect to the supervisor that owns a container directory; raises ``WrongState``."""
    try:
        pinned = Pinned(directory)
    except OSError:
        raise NotFound(f'no such container: "{name}"') from None
    sock = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC)
    try:
        sock.connect(f"{pinned.path}/control.sock")
    except OSError:
        sock.close()
        raise WrongState(f'container "{name}" is not running') from None
    finally:
        pinned.close()
    return ControlClient(sock)
