"""``state``, ``kill``, ``start`` and ``delete`` as engines call them, with next to nothing loaded.

Engines call these several times for each container, and a command's time is that of its imports.
The one rule: only the plain case is done here. Whatever is not (another flag, a hook, a pod, a
configuration that was not read before, a supervisor that was killed, any error) is left to the
verbs' own modules before anything is done; a failed start takes its error along.
"""

from __future__ import annotations

import _signal
import posix
import sys
from gc import disable

from kata.wire.quickjson import loads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket
    from collections.abc import Sequence
    from typing import Any, NoReturn

    from kata.errors import KataError

    Call = tuple[str, bytes]  # a method, and its request

_CONFIGURATION = b"/etc/kata-containers/configuration.toml"
_STATE_ROOT = "/run/kata"
_VALUES, _FLAGS = ("--root", "--log", "--log-format"), ("--systemd-cgroup", "--debug")
_ALLOWED = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_+-.")
_LONGEST = 200
_MOST = 64 << 10  # bytes of a file
_PATIENCE_S, _STEP_S = 0.1, 0.0005  # for a supervisor that has announced the end to be gone
_DONE = (b"", b"\n\0")  # an answer without payload: a status that says nothing, or none


class Plain(Exception):
    """It is not: the verbs' own modules see to it; ``failure`` is what came of it already."""

    failure: KataError | None = None


def enter(argv: Sequence[str]) -> NoReturn:
    """Run the program to its end."""
    disable()  # a command makes few cycles and ends soon; a supervisor switches it on again
    failure = None
    try:
        run(argv)
        posix._exit(0)
    except Plain as other:
        failure = other.failure
    except Exception:  # the verb's own module finds it again, and tells it
        pass
    from kata.cli.runtime.main import main

    posix._exit(main(argv, failure))


def run(argv: Sequence[str]) -> None:
    """Do it, if it is plain; else raises, with nothing done."""
    at, root = 0, ""
    while argv[at].startswith("--"):
        name, equals, value = argv[at].partition("=")
        if name in _VALUES:
            at, value = (at, value) if equals else (at + 1, argv[at + 1])
            root = value if name == "--root" else root
        elif argv[at] not in _FLAGS:
            raise Plain
        at += 1
    verb, *words = argv[at:]
    do = _VERBS.get(verb)
    if do is None:
        raise Plain
    if verb == "delete" and words[0] in ("--force", "-f"):
        del words[0]
    name = words[0]
    if name[0] in "-." or set(name) - _ALLOWED or len(name) > _LONGEST:
        raise Plain
    do(Found(root or state_root(), name), *words[1:])


class Found:
    """A container by its name: its state as it is on disk, and where that is."""

    def __init__(self, root: str, name: str) -> None:
        self.root, self.name = root, name
        self.id = posix.readlink(f"{root}/names/{name}")
        self.directory = f"{root}/{self.id}"
        self.state: dict[str, Any] = loads(_read(f"{self.directory}/state.json"))
        self.owner = f"{root}/{self.state['sandbox'] or self.id}"

    def alive(self) -> bool:
        """Whether a supervisor has it: asked as ``store.Store.alive`` does."""
        from fcntl import LOCK_NB, LOCK_SH, flock

        fd = posix.open(f"{self.owner}/lock", posix.O_RDWR | posix.O_CLOEXEC)
        try:
            flock(fd, LOCK_SH | LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            posix.close(fd)
        return False

    def settled(self, *statuses: str) -> None:
        """Nothing but one of these is plain; who runs must have a supervisor."""
        status = self.state["status"]
        if status not in statuses or (status != "stopped" and not self.alive()):
            raise Plain


class _View:
    """A state as ``cli.runtime.state`` reads it."""

    def __init__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)


def _state(found: Found) -> None:
    from kata.cli.runtime.state import document
    from kata.wire.quickjson import dumps

    found.settled("creating", "created", "running", "paused", "stopped")
    text: Any = _View(found.state)
    sys.stdout.write(f"{dumps(document(text), indent=2)}\n")
    sys.stdout.flush()


def _kill(found: Found, signal: str = "TERM") -> None:
    found.settled("created", "running", "paused")
    _call(found, ("Signal", text(1, found.id) + bytes((3 << 3, signal_of(signal)))))


def signal_of(word: str) -> int:
    """As ``oci.signals.number``, for numbers and plain names; raises ``Plain`` for the others."""
    if word.isdecimal() and word.isascii():
        number = int(word)
    else:
        name = word.upper().removeprefix("SIG")
        number = getattr(_signal, f"SIG{name}", 0) if name.isalnum() else 0
    if not 0 < number < _signal.NSIG:
        raise Plain
    return number


def _start(found: Found) -> None:
    found.settled("created")
    if found.state["hooks"]:
        raise Plain
    answer = _call(found, ("Start", text(1, found.id)), again=False)
    if answer:
        from kata.wire.ttrpc import Connection

        other = Plain()
        [event] = Connection().receive(answer)
        other.failure = getattr(event, "error", None)
        raise other


def _delete(found: Found) -> None:
    state = found.state
    found.settled("stopped")
    if state["hooks"] or state["sandbox"] or not state["traces"]:
        raise Plain
    left = _PATIENCE_S
    while found.alive():
        from time import sleep

        if left <= 0:
            raise Plain
        sleep(_STEP_S)
        left -= _STEP_S
    for path in state["traces"]:  # its groups, and what its supervisor removed if all went well
        try:
            posix.rmdir(path)
        except FileNotFoundError:
            pass
        except OSError:
            raise Plain from None
    for file in posix.listdir(found.directory):
        posix.unlink(f"{found.directory}/{file}")
    posix.rmdir(found.directory)
    posix.unlink(f"{found.root}/names/{found.name}")


_VERBS = {"state": _state, "kill": _kill, "start": _start, "delete": _delete}


def dial(found: Found) -> socket:
    """A connection to the supervisor."""
    from _socket import AF_UNIX, SOCK_CLOEXEC, SOCK_STREAM, socket

    place = posix.open(found.owner, posix.O_PATH | posix.O_DIRECTORY | posix.O_CLOEXEC)
    sock = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC)
    sock.connect(f"/proc/self/fd/{place}/control.sock")
    posix.close(place)
    return sock


def _call(found: Found, call: Call, *, again: bool = True) -> bytes:
    """Call the supervisor and wait: its answer, empty if it is that all went well.

    With ``again`` a failure is left to the verb's own module, which gets the same by asking again.
    """
    sock = dial(found)
    sock.sendall(framed(*call))
    answer = b""
    while len(answer) < 10 or len(answer) < 10 + int.from_bytes(answer[:4], "big"):
        data = sock.recv(65536)
        if not data:
            break
        answer += data
    if answer[10:] in _DONE and answer:
        return b""
    if again:
        raise Plain
    return answer


def framed(method: str, request: bytes, stream: int = 1) -> bytes:
    """A call as ``wire.ttrpc`` frames it; the streams of those on a connection are 1, 3, ..."""
    body = text(1, "kata.Control") + text(2, method) + text(3, request)
    return len(body).to_bytes(4, "big") + stream.to_bytes(4, "big") + b"\1\1" + body


def text(number: int, value: str | bytes) -> bytes:
    """A field of bytes, as ``wire.protobuf`` encodes it."""
    data = value.encode() if isinstance(value, str) else value
    head, size = [number << 3 | 2], len(data)
    while size > 127:
        head.append(size & 127 | 128)
        size >>= 7
    return bytes((*head, size)) + data


def state_root() -> str:
    """The state root of the configuration, if that is as it was when it was kept."""
    from zlib import crc32

    path = posix.environ.get(b"KATA_CONFIG") or _CONFIGURATION
    if _is_there(path.rpartition(b"/")[0] + b"/config.d"):
        raise Plain
    if not _is_there(path):
        if path != _CONFIGURATION:
            raise Plain
        return _STATE_ROOT
    kept = f"{_STATE_ROOT}/cache/config-{crc32(path):08x}.json"
    owner = posix.stat(kept, follow_symlinks=False)
    if owner.st_uid or owner.st_mode & 0o177777 != 0o100600:
        raise Plain
    value, now = loads(_read(kept)), posix.stat(path)
    files = [[path.decode(), now.st_mtime_ns, now.st_size, now.st_dev, now.st_ino]]
    if value["key"][0] != files or now.st_mode & 0o002:
        raise Plain
    found: str = value["values"].get("runtime", {}).get("state_root", _STATE_ROOT)
    return found


def _is_there(path: bytes) -> bool:
    try:
        posix.stat(path)
    except FileNotFoundError:
        return False
    return True


def _read(path: str) -> bytes:
    fd = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC)
    try:
        data = posix.read(fd, _MOST)
    finally:
        posix.close(fd)
    if len(data) == _MOST:
        raise Plain
    return data
