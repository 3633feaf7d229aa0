"""Everything a QEMU process says: replies, events, console, errors, and its end.

The one rule: one thread at a time turns this wheel (``turn``), first whoever starts the VM, then
the watcher; all that QEMU and the guest say is bounded.
"""

from __future__ import annotations

import _thread
import os
import select
from _queue import SimpleQueue

from kata.errors import HypervisorError, ProtocolError
from kata.hypervisors.qemu.qmp import Event, Qmp, Reply, check

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket as Socket  # noqa: N812
    from collections.abc import Callable
    from typing import Any

    from kata.linux.confine import Process

CONSOLE_BYTES, ERROR_BYTES = 64 << 10, 16 << 10
_COMMAND_TIMEOUT_S = 30.0
_MOST_QUEUED_EVENTS = 1000
_READ = 64 << 10


class Tail:
    """The last bytes of something endless."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._data = bytearray()

    def add(self, data: bytes) -> None:
        """Append, forgetting the oldest."""
        self._data += data
        if len(self._data) > self._most:
            del self._data[: -self._most]

    def text(self) -> str:
        """What is kept, as text with plain line ends."""
        return bytes(self._data).decode(errors="replace").replace("\r\n", "\n")


class Pending:
    """A command whose reply is awaited."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.reply: Reply | None = None
        self._done = _thread.allocate_lock()
        self._done.acquire()

    def finish(self, reply: Reply) -> None:
        """Deliver the reply."""
        self.reply = reply
        self._done.release()

    def wait(self, timeout: float) -> Reply:
        """The reply. Raises ``HypervisorError`` if there is none in time."""
        if not self._done.acquire(timeout=timeout):
            raise HypervisorError(f'QEMU did not answer "{self.name}" within {timeout:g} s')
        self._done.release()
        assert self.reply is not None
        return self.reply


class Watch:
    """The host's ears on one QEMU process; owns the monitor, console and error descriptors."""

    def __init__(self, process: Process, monitor: Socket, console: Socket, errors: int) -> None:
        self.process = process
        self.console, self.errors = Tail(CONSOLE_BYTES), Tail(ERROR_BYTES)
        self.death = ""
        self.running = False  # the guest has been let run
        self.answered = False  # QEMU's main loop has answered something
        self._qmp = Qmp()
        self._monitor, self._console, self._errors = monitor, console, errors
        self._sending = _thread.allocate_lock()
        self._pending: dict[int, Pending] = {}
        self._queues: dict[str, list[SimpleQueue[dict[str, Any]]]] = {}
        self._callbacks: list[Callable[[str], None]] = []
        self._shutdown = ""  # QEMU's own word for why it ends
        self._expected = False
        self._poller = select.poll()
        self._handlers: dict[int, Callable[[], None]] = {}
        monitor.setblocking(False)
        console.setblocking(False)
        os.set_blocking(errors, False)
        self.register(monitor.fileno(), self._on_monitor)
        self.register(console.fileno(), self._on_console)
        self.register(errors, self._on_errors)
        self.register(process.pidfd, self._on_exit)

    def register(self, fd: int, handler: Callable[[], None]) -> None:
        """Call ``handler`` whenever there is something to read from ``fd``."""
        self._handlers[fd] = handler
        self._poller.register(fd, select.POLLIN)

    def forget(self, fd: int) -> None:
        """Listen to ``fd`` no more."""
        if self._handlers.pop(fd, None) is not None:
            self._poller.unregister(fd)

    def turn(self, timeout: float) -> None:
        """Handle what has been said, waiting for it at most ``timeout`` seconds (< 0: for ever)."""
        ready = self._poller.poll(timeout * 1000 if timeout >= 0 else None)
        for fd, _ in ready:
            handler = self._handlers.get(fd)
            if handler is not None:
                handler()

    def follow(self) -> None:
        """Turn until the process has ended (the watcher thread)."""
        while not self.death:
            self.turn(-1)

    def start(self, name: str, arguments: dict[str, Any] | None = None) -> Pending:
        """Send a command; whoever waits for it must not be the one who turns."""
        pending = Pending(name)
        with self._sending:
            if self.death:
                raise HypervisorError("the virtual machine has ended", why=self.death)
            number, data = self._qmp.command(name, arguments)
            self._pending[number] = pending
            self._send(data)
        return pending

    def _send(self, data: bytes) -> None:
        poller = select.poll()
        poller.register(self._monitor, select.POLLOUT)
        while data:
            if not poller.poll(_COMMAND_TIMEOUT_S * 1000):
                raise HypervisorError("QEMU takes no commands")
            try:
                data = data[self._monitor.send(data) :]
            except BlockingIOError:
                continue
            except OSError as error:
                raise HypervisorError("QEMU's monitor is gone", why=str(error)) from None

    def send_descriptor(self, name: str, fd: int) -> Pending:
        """Pass QEMU a descriptor, known there as ``name``."""
        return self.start_with("getfd", {"fdname": name}, fd)

    def start_with(self, name: str, arguments: dict[str, Any], fd: int) -> Pending:
        """Send a command that takes a descriptor along."""
        from kata.linux import fds

        pending = Pending(name)
        with self._sending:
            number, data = self._qmp.command(name, arguments)
            self._pending[number] = pending
            fds.send(self._monitor, data, [fd])
        return pending

    def execute(
        self, name: str, arguments: dict[str, Any] | None = None,
        timeout: float = _COMMAND_TIMEOUT_S,
    ) -> Any:  # fmt: skip
        """Command, and its value. Raises ``HypervisorError``."""
        return check(self.start(name, arguments).wait(timeout), name)

    def queue(self, event: str) -> SimpleQueue[dict[str, Any]]:
        """A queue of the data of all events of this name from now on; None's place at the end."""
        queue: SimpleQueue[dict[str, Any]] = SimpleQueue()
        self._queues.setdefault(event, []).append(queue)
        return queue

    def drop(self, event: str, queue: SimpleQueue[dict[str, Any]]) -> None:
        """No more of these events."""
        self._queues[event].remove(queue)

    def on_death(self, callback: Callable[[str], None]) -> None:
        """See ``Vm.on_death``."""
        self._callbacks.append(callback)
        if self.death and not self._expected:
            callback(self.death)

    def expect_death(self) -> None:
        """We are about to kill it: nobody need be told."""
        self._expected = True

    def version(self) -> tuple[int, int, int]:
        """QEMU's version; (0, 0, 0) until it has said it."""
        return self._qmp.version

    def _on_monitor(self) -> None:
        data = _receive(self._monitor)
        if data is None:
            return
        if not data:
            self.forget(self._monitor.fileno())
            return
        try:
            for item in self._qmp.receive(data):
                if isinstance(item, Reply):
                    self._on_reply(item)
                else:
                    self._on_event(item)
        except ProtocolError as error:
            self._shutdown = str(error)
            self.forget(self._monitor.fileno())
            self.process.kill()

    def _on_reply(self, reply: Reply) -> None:
        self.answered = True
        pending = self._pending.pop(reply.number, None)
        if pending is not None:
            pending.finish(reply)

    def _on_event(self, event: Event) -> None:
        if event.name == "RESUME":
            self.running = True
        elif event.name == "SHUTDOWN":
            self._shutdown = str(event.data.get("reason", ""))[:100]
        for queue in self._queues.get(event.name, ()):
            if queue.qsize() < _MOST_QUEUED_EVENTS:
                queue.put(event.data)

    def _on_console(self) -> None:
        data = _receive(self._console)
        if data:
            self.console.add(data)
        elif data is not None:
            self.forget(self._console.fileno())

    def _on_errors(self) -> None:
        try:
            data = os.read(self._errors, _READ)
        except BlockingIOError:
            return
        if data:
            self.errors.add(data)
        else:
            self.forget(self._errors)

    def _on_exit(self) -> None:
        status = self.process.poll()
        if status is None:
            return
        for fd in (self._monitor.fileno(), self._console.fileno(), self._errors):
            for _ in range(64):  # what it said last; there is no more than the sockets hold
                handler = self._handlers.get(fd)
                if handler is None:
                    break
                handler()
        self.forget(self.process.pidfd)
        with self._sending:
            self.death = _reason(status, self._shutdown, self.errors.text())
            pending, self._pending = list(self._pending.values()), {}
        for command in pending:
            command.finish(Reply(0, None, self.death))
        if not self._expected:
            for callback in self._callbacks:
                callback(self.death)

    def close(self) -> None:
        """Close what is owned; after the end of the process."""
        self._monitor.close()
        self._console.close()
        if self._errors >= 0:
            os.close(self._errors)
            self._errors = -1


def _receive(sock: Socket) -> bytes | None:
    """Some bytes, b"" at the end, None if there is nothing yet."""
    try:
        return sock.recv(_READ)
    except BlockingIOError:
        return None
    except OSError:
        return b""


_SHUTDOWN_REASONS = {
    "guest-reset": "the guest crashed, or restarted itself",
    "guest-panic": "the guest's kernel panicked",
    "guest-shutdown": "the guest shut itself down",
}


def _reason(status: int, shutdown: str, errors: str) -> str:
    if status < 0:
        how = f"QEMU was killed by signal {-status}"
    elif shutdown:
        return _SHUTDOWN_REASONS.get(shutdown, f"QEMU ended: {shutdown}")
    else:
        how = f"QEMU ended with status {status}"
    lines = [line for line in errors.splitlines() if line.strip() and "warning:" not in line]
    return f"{how}: {lines[-1][:500]}" if lines else how
