"""``kata exec`` as scripts call it, with next to nothing loaded: half of its time was imports.

The one rule is that of ``cli.runtime.quick``: only the plain case is done here (no terminal, no
option but ``-i``, a container by its name), and whatever is not is left to the verb's own module
with nothing done. A process that did not start takes its error along; from the first signal on,
``cli.attach`` sees to the process that runs.
"""

from __future__ import annotations

import _signal
import posix
import select
from gc import disable

from kata.cli.forwarded import FORWARDED
from kata.cli.runtime.quick import Found, Plain, dial, framed, state_root, text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket
    from collections.abc import Sequence
    from typing import NoReturn

_ROOTS = ("--root", "--data-root")
_MOST = 32 << 10  # bytes of words
_RECEIVE = 64 << 10
_OK = b"\n\0"  # what a response that is no failure begins with: its status
_EXIT_CODE = 1  # the field of ``control_calls.ExitResponse``


def enter(argv: Sequence[str]) -> NoReturn:
    """Run the program to its end."""
    disable()  # a command makes few cycles and ends soon
    failure = None
    try:
        posix._exit(run(argv))
    except Plain as other:
        failure = other.failure
    except Exception:  # the verb's own module finds it again, and tells it
        pass
    except KeyboardInterrupt:
        posix._exit(130)
    from kata.cli.main import enter as whole

    whole(argv, failure=failure)


def run(argv: Sequence[str]) -> int:
    """Do it, if it is plain, and give the exit code; else raises, with nothing done."""
    root, name, words, interactive = parse(argv)
    streams = [0, 1, 2] if interactive else [1, 2]
    for fd in streams:
        posix.fstat(fd)
        if posix.isatty(fd):
            raise Plain
    found = Found(root or state_root(), name)
    found.settled("running")
    sock = dial(found)
    request = b"".join(text(1, word) for word in words)
    request += text(8, bytes(streams)) + text(10, found.id)
    if len(request) > _MOST:
        raise Plain
    return _Exec(sock, found).run(framed("Exec", request), streams)


def parse(argv: Sequence[str]) -> tuple[str, str, list[str], bool]:
    """State root, container, command, and whether it gets our stdin. Raises ``Plain``."""
    words, root, interactive = list(argv), "", False
    while words[0] != "exec":
        name, equals, value = words.pop(0).partition("=")
        if name not in _ROOTS:
            raise Plain
        if not equals:
            value = words.pop(0)
        root = value if name == "--root" else root
    del words[0]
    if words[0] in ("-i", "--interactive"):
        interactive = bool(words.pop(0))
    name = words.pop(0)
    if name[0] in "-." or "/" in name:
        raise Plain
    if words[0] == "--":
        del words[0]
    if not words:
        raise Plain
    return root, name, words, interactive


class _Exec:
    """One process, from the call for it to its exit code."""

    def __init__(self, sock: socket, found: Found) -> None:
        self._sock, self._found = sock, found
        self._received = b""

    def run(self, call: bytes, streams: list[int]) -> int:
        """The exit code; raises ``Plain`` with why it did not start."""
        from _socket import SCM_RIGHTS, SOL_SOCKET

        rights = b"".join(fd.to_bytes(4, "little") for fd in streams)
        self._sock.sendall(call[self._sock.sendmsg([call], [(SOL_SOCKET, SCM_RIGHTS, rights)]) :])
        started = self._answer()
        if not started.startswith(_OK, 10):
            raise _refused(started)
        exec_id = started[16:].decode()  # the one field of its payload, which is a short one
        try:
            return self._wait(exec_id)
        except Exception as error:  # it runs: from here on nothing is left to be done again
            raise _told(error) from None

    def _wait(self, exec_id: str) -> int:
        signals = _catch_signals()
        wanted = text(1, self._found.id) + text(2, exec_id)
        try:
            self._sock.sendall(framed("Wait", wanted, 3))
        except OSError:
            return self._attached(exec_id, b"")
        poll = select.poll()
        poll.register(self._sock.fileno(), select.POLLIN)
        poll.register(signals, select.POLLIN)
        while not self._whole():
            ready = [fd for fd, _ in poll.poll()]
            if signals in ready:
                return self._attached(exec_id, posix.read(signals, 512))
            if not self._receive():
                return self._attached(exec_id, b"")
        code = exit_code_of(self._received[10:])
        return self._attached(exec_id, b"") if code < 0 else code

    def _answer(self) -> bytes:
        while not self._whole():
            if not self._receive():
                raise _told(EOFError())
        answer, self._received = self._received, b""  # only one was asked for
        return answer

    def _whole(self) -> bool:
        return len(self._received) >= 10 + int.from_bytes(self._received[:4], "big")

    def _receive(self) -> bool:
        data = self._sock.recv(_RECEIVE)
        self._received += data
        return bool(data)

    def _attached(self, exec_id: str, signals: bytes) -> int:
        """Whatever else happens to it is for the module that knows all of it."""
        from kata.cli.exec import follow
        from kata.runtime.control import ControlClient
        from kata.runtime.store import Store

        client = ControlClient(self._sock, sent=("Exec", "Wait"))
        client.feed(self._received)
        store = Store(self._found.root)
        return follow(client, self._found.id, exec_id, signals, 3, store)


def _refused(answer: bytes) -> Plain:
    """Why it did not start, in the words of the verb's own module."""
    from kata.cli.run_request import without_config
    from kata.wire.ttrpc import Connection

    [event] = Connection().receive(answer)
    error = getattr(event, "error", None)
    return _told(without_config(error, "") if error is not None else EOFError())


def _told(error: Exception) -> Plain:
    """Let the verb's own module tell an error."""
    from kata.errors import KataError
    from kata.runtime.control import lost

    other = Plain()
    other.failure = error if isinstance(error, KataError) else lost()
    return other


def exit_code_of(response: bytes) -> int:
    """The exit code in the response to ``Wait``; -1 if there is more to it than that."""
    if response == _OK:
        return 0
    if not response.startswith(_OK + b"\x12") or response[3] != len(response) - 4:
        return -1
    at, code = 4, 0
    while at < len(response):
        key, at = _varint(response, at)
        value, at = _varint(response, at)
        if key & 7:  # a text: of an output that could not be written
            return -1
        if key >> 3 == _EXIT_CODE:
            code = value
    return code if code < 256 else -1


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return value, at


def _catch_signals() -> int:
    """From now on signals are collected; where they can be read."""
    reader, writer = posix.pipe2(posix.O_CLOEXEC | posix.O_NONBLOCK)
    _signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    for number in FORWARDED:
        if _signal.getsignal(number) is not _signal.SIG_IGN:
            _signal.signal(number, _noted)
    return reader


def _noted(*_: object) -> None:
    """Only the wake-up descriptor matters."""
