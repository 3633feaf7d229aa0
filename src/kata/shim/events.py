"""What happens to tasks, told to containerd in the order in which it happened.

One thread sends; whoever has an event to tell only puts it into a queue. While containerd is
away (it restarts) the events wait, up to ``MOST``; then the oldest go, and the log says so.
"""

from __future__ import annotations

import _thread
import os
import time
from _socket import AF_UNIX, SO_RCVTIMEO, SO_SNDTIMEO, SOCK_CLOEXEC, SOCK_STREAM, SOL_SOCKET, socket

from kata.errors import KataError
from kata.wire.containerd_events import TOPICS, Envelope, ForwardRequest
from kata.wire.containerd_types import EVENTS_SERVICE, timestamp
from kata.wire.ttrpc import AnyMessage, Connection, Response

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kata.wire.protobuf import Message

MOST = 2048
_ANSWER_S = 5
_PAUSES_S = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
_RECEIVE = 4096


class Publisher:
    """Tells containerd of events over its ttRPC socket; with no address it tells nobody."""

    def __init__(self, address: str, namespace: str) -> None:
        self._path = address.removeprefix("unix://")
        self._namespace = namespace
        self._waiting: list[bytes] = []
        self._changing = _thread.allocate_lock()
        self._wake = _thread.allocate_lock()
        self._wake.acquire()
        self._sending = False
        self._sock: socket | None = None
        self._connection = Connection()
        if self._path:
            _thread.start_new_thread(self._run, ())

    def publish(self, event: Message) -> None:
        """Take note of an event; returns at once."""
        if not self._path:
            return
        envelope = Envelope(
            timestamp=timestamp(time.time_ns()), namespace=self._namespace,
            topic=TOPICS[type(event)],
            event=AnyMessage(
                type_url=f"containerd.events.{type(event).__name__}", value=event.encode()
            ),
        )  # fmt: skip
        with self._changing:
            self._waiting.append(ForwardRequest(envelope=envelope).encode())
            lost = len(self._waiting) - MOST
            if lost > 0:
                del self._waiting[:lost]
        if lost > 0:
            _note(f"{lost} events are lost: nobody takes them")
        self._signal()

    def _signal(self) -> None:
        if self._wake.locked():
            try:
                self._wake.release()
            except RuntimeError:
                pass  # another thread was first

    def flush(self, seconds: float) -> bool:
        """Wait until all was told, at most so long; whether it was."""
        end = time.monotonic() + seconds
        while self._path and (self._waiting or self._sending):
            if time.monotonic() > end:
                return False
            time.sleep(0.002)
        return True

    def close(self) -> None:
        """Tell nobody any more."""
        self._path = ""
        self._signal()

    def _run(self) -> None:
        failed = 0
        while self._path:
            with self._changing:
                request = self._waiting[0] if self._waiting else b""
                self._sending = bool(request)
            if not request:
                self._wake.acquire()
                continue
            if self._forward(request):
                failed = 0
                with self._changing:
                    if self._waiting and self._waiting[0] is request:
                        del self._waiting[0]
            else:
                time.sleep(_PAUSES_S[min(failed, len(_PAUSES_S) - 1)])
                failed += 1
        self._hang_up()

    def _forward(self, request: bytes) -> bool:
        """Whether an event need not be sent again: it was taken, or refused for good."""
        try:
            sock = self._sock or self._dial()
            number, data = self._connection.request(EVENTS_SERVICE, "Forward", request)
            sock.sendall(data)
            return self._answered(sock, number)
        except (OSError, KataError):
            self._hang_up()
            return False

    def _dial(self) -> socket:
        sock = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC)
        limit = _ANSWER_S.to_bytes(8, "little") + bytes(8)
        sock.setsockopt(SOL_SOCKET, SO_RCVTIMEO, limit)
        sock.setsockopt(SOL_SOCKET, SO_SNDTIMEO, limit)
        self._sock, self._connection = sock, Connection()
        sock.connect(self._path)
        return sock

    def _answered(self, sock: socket, number: int) -> bool:
        while data := sock.recv(_RECEIVE):
            for event in self._connection.receive(data):
                if isinstance(event, Response) and event.stream == number:
                    if event.error is not None:
                        _note(f"an event was refused: {event.error}")
                    return True
        raise OSError("hung up")

    def _hang_up(self) -> None:
        if self._sock is not None:
            self._sock.close()
            self._sock = None


def _note(text: str) -> None:
    try:
        os.write(2, f"{text}\n".encode())
    except OSError:
        pass
