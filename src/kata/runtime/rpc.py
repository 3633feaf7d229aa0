"""A blocking ttRPC client on the host: calls and streams to a peer over one stream socket.

The peer may be a hostile guest. So: every message is bounded, a stream never holds more than its
window, a peer that does not read delays nobody for longer than a time limit, and the first
breach of the protocol ends the connection with ``AgentError`` for everyone waiting on it.
One thread reads; any thread may call.
"""

from __future__ import annotations

import _thread
from _queue import SimpleQueue
from _socket import SHUT_RDWR, SO_SNDTIMEO, SOL_SOCKET

from kata.errors import AgentError, KataError, ProtocolError
from kata.wire import agent_api
from kata.wire.flow import MAX_CHUNK, ReceiveWindow, SendWindow
from kata.wire.ttrpc import Connection, Data, Request

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket
    from collections.abc import Callable

    from kata.wire.protobuf import Message
    from kata.wire.ttrpc import Event, Response

MAX_MESSAGE = 1 << 20  # no answer of the agent comes near this
CALL_TIMEOUT = 60.0
SEND_TIMEOUT_S = 30


class Call:
    """A call under way; ``result`` waits for it."""

    def __init__(self, method: str, answer: type[Message]) -> None:
        self.method = method
        self._answer = answer
        self._done = _thread.allocate_lock()
        self._done.acquire()
        self._payload = b""
        self._error: KataError | None = None
        self.on_end: Callable[[], None] | None = None

    def finish(self, payload: bytes, error: KataError | None) -> None:
        """Deliver the answer (once; from the reading thread)."""
        if self._done.locked():
            self._payload, self._error = payload, error
            self._done.release()
            if self.on_end is not None:
                self.on_end()

    def ends_within(self, seconds: float) -> bool:
        """Wait up to ``seconds`` for the answer; whether it is there."""
        if not self._done.acquire(timeout=seconds):
            return False
        self._done.release()
        return True

    def result(self, timeout: float = CALL_TIMEOUT) -> Message:
        """The answer; raises the error, or ``AgentError`` after ``timeout`` s (-1: never)."""
        if not self.ends_within(timeout):
            raise AgentError(
                f'the agent did not answer "{self.method}" within {timeout:g} s',
                hint="the guest may be overloaded or stuck; kata rm -f ends it",
            )
        if self._error is not None:
            raise self._error
        return self._answer.decode(self._payload)


class Stream(Call):
    """One standard stream: data frames one way, window grants the other."""

    def __init__(self, client: Client, method: str, answer: type[Message]) -> None:
        super().__init__(method, answer)
        self._client = client
        self.number = 0
        self.inbox: SimpleQueue[bytes | None] = SimpleQueue()
        self.ended = False
        self._receive = ReceiveWindow()
        self._send = SendWindow()
        self._writing = method == "WriteInput"

    def arrived(self, data: Data) -> None:
        """Take a data frame (from the reading thread; never blocks)."""
        if data.payload:
            if not self._writing:
                self._receive.received(len(data.payload))
            elif self.inbox.qsize() > 4096:
                raise ProtocolError("stream: too many window grants")
            self.inbox.put(data.payload)
        if data.closed:
            self.inbox.put(None)

    def finish(self, payload: bytes, error: KataError | None) -> None:
        """The stream is over: wake whoever waits."""
        self.ended = True
        self.inbox.put(None)
        super().finish(payload, error)

    def read(self) -> bytes:
        """The next output, b"" at its end."""
        return self.inbox.get() or b""

    def consumed(self, count: int) -> None:
        """Tell the peer that output was passed on, so that it may send more."""
        grant = self._receive.consumed(count)
        if grant and not self.ended:
            self._client.send(Connection.data(self.number, grant))

    def room(self) -> int:
        """Wait until input may be sent; how many bytes, 0 if the stream ended."""
        while not self.ended:
            while not self.inbox.empty():
                self._absorb(self.inbox.get())
            if self._send.available:
                return min(self._send.available, MAX_CHUNK)
            self._absorb(self.inbox.get())
        return 0

    def _absorb(self, grant: bytes | None) -> None:
        if grant:
            self._send.grant(grant)
        else:
            self.ended = True

    def write(self, data: bytes) -> None:
        """Send input, at most what ``room`` allowed."""
        self._send.take(len(data))
        self._client.send(Connection.data(self.number, data))

    def close(self) -> None:
        """End our direction: end of file for a reader, broken pipe for a writer."""
        if not self.ended:
            self._client.send(Connection.data(self.number, b"", close=True))


class Client:
    """Calls and streams over a connected stream socket; owns the socket."""

    def __init__(self, sock: socket, *, name: str = "agent") -> None:
        self._sock = sock
        self._name = name
        self.call_timeout = CALL_TIMEOUT
        self._connection = Connection(max_message=MAX_MESSAGE)
        self._calls: dict[int, Call] = {}
        self._sending = _thread.allocate_lock()
        self._failure: KataError | None = None
        self._corked: list[bytes] | None = None
        self.on_failure: Callable[[KataError], None] | None = None
        sock.setblocking(True)
        seconds = SEND_TIMEOUT_S.to_bytes(8, "little") + bytes(8)
        sock.setsockopt(SOL_SOCKET, SO_SNDTIMEO, seconds)
        self._finished = _thread.allocate_lock()
        self._finished.acquire()
        _thread.start_new_thread(self._read, ())

    def call(self, method: str, request: Message, timeout: float = 0) -> Message:
        """Call a method and wait for its answer; 0: as long as ``call_timeout`` says."""
        return self.start(method, request).result(timeout or self.call_timeout)

    def start(self, method: str, request: Message) -> Call:
        """Call a method without waiting."""
        call = Call(method, agent_api.METHODS[method][1])
        self._open(call, method, request, stream=False)
        return call

    def stream(self, method: str, request: Message) -> Stream:
        """Open a standard stream (``ReadOutput``, ``WriteInput``) or ``Events``."""
        stream = Stream(self, method, agent_api.METHODS[method][1])
        self.open(stream, request)
        return stream

    def open(self, stream: Stream, request: Message) -> None:
        """Open a stream that was made for it."""
        self._open(stream, stream.method, request, stream=True)

    def cork(self) -> None:
        """Collect what is sent until ``uncork``: one write, so one wake-up of the guest."""
        self._corked = []

    def uncork(self) -> None:
        """Send what was collected, of other threads too."""
        if not self._sending.acquire(timeout=SEND_TIMEOUT_S):
            raise self._stuck()
        try:
            corked, self._corked = self._corked or [], None
            self._transmit(b"".join(corked))
        finally:
            self._sending.release()

    def _open(self, call: Call, method: str, request: Message, *, stream: bool) -> None:
        body = request.encode()
        if not self._sending.acquire(timeout=SEND_TIMEOUT_S):
            raise self._stuck()
        try:
            number, data = self._connection.request(agent_api.SERVICE, method, body, stream=stream)
            self._calls[number] = call
            if isinstance(call, Stream):
                call.number = number
            self._transmit(data)
        finally:
            self._sending.release()

    def send(self, data: bytes) -> None:
        """Send a frame; raises ``AgentError`` if the connection is gone or stuck."""
        if not self._sending.acquire(timeout=SEND_TIMEOUT_S):
            raise self._stuck()
        try:
            self._transmit(data)
        finally:
            self._sending.release()

    def _transmit(self, data: bytes) -> None:
        if self._failure is not None:
            raise self._failure
        if self._corked is not None:
            self._corked.append(data)
            return
        try:
            self._sock.sendall(data)
        except BlockingIOError:
            raise self._stuck() from None
        except OSError as error:
            what = f"the connection to the {self._name} is gone"
            raise AgentError(what, why=str(error)) from None

    def _stuck(self) -> KataError:
        return AgentError(f"the {self._name} takes no data", hint="kata rm -f ends it")

    def _read(self) -> None:
        failure: KataError | None = None
        try:
            while data := self._sock.recv(MAX_CHUNK << 1):
                for event in self._connection.receive(data):
                    self._dispatch(event)
        except ProtocolError as error:
            failure = AgentError(f"the {self._name} broke the protocol", why=str(error))
        except OSError as error:
            failure = AgentError(f"the connection to the {self._name} is gone", why=str(error))
        self._fail(failure or AgentError(f"the {self._name} closed the connection"))
        self._finished.release()

    def _dispatch(self, event: Event) -> None:
        if isinstance(event, Request):
            raise ProtocolError("a request from the guest")
        call = self._calls.get(event.stream)
        if isinstance(event, Data):
            if not isinstance(call, Stream):
                raise ProtocolError("data on no stream", why=f"stream {event.stream}")
            call.arrived(event)
        elif call is None:
            raise ProtocolError("an answer to no call", why=f"stream {event.stream}")
        else:
            del self._calls[event.stream]
            self._finish(call, event)

    @staticmethod
    def _finish(call: Call, event: Response) -> None:
        call.finish(event.payload, event.error)

    def _fail(self, failure: KataError) -> None:
        self._failure = failure
        while self._calls:
            _, call = self._calls.popitem()
            call.finish(b"", failure)
        if self.on_failure is not None:
            self.on_failure(failure)

    def close(self) -> None:
        """Close the connection and wait until the reading thread is done."""
        try:
            self._sock.shutdown(SHUT_RDWR)
        except OSError:
            pass
        if self._finished.acquire(timeout=5):
            self._finished.release()
        self._sock.close()
