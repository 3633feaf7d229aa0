"""The pool of ready sandboxes, as who starts one sees it: it may be given one, or none.

    member = pool.take(config, launch)
    if member is None or not member.hand(order, descriptors):
        ...                                              # start one, as without a pool

``kata factory serve`` keeps it (``keeper``); a member (``ready``) is a supervisor whose machine has
been restored, has run a container before and stands still. The rule: without the pool, or with one
that does not fit, nothing changes but the time it takes.
"""

from __future__ import annotations

import os
from _socket import AF_UNIX, SOCK_CLOEXEC, SOCK_SEQPACKET, SOCK_STREAM, socket

from kata.runtime.control import Pinned, receive_with_fds, send_with_fds
from kata.runtime.store import POOL_SOCKET
from kata.wire.quickjson import dumps, loads
from kata.wire.record import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from kata.config.settings import Config
    from kata.runtime.machines import Launch

TAKE, LIST = b"take ", b"list"
TAKEN = b"+"
_PATIENCE_S = 1.0  # a keeper answers at once, or is in trouble
_MOST_MEMBERS_TEXT = 64 << 10  # bytes


class Member:
    """A ready sandbox that is nobody's yet: the connection to its supervisor."""

    def __init__(self, sock: socket, pid: int) -> None:
        self._sock = sock
        self.pid = pid

    def hand(self, order: dict[str, Any], fds: Sequence[int]) -> bool:
        """Tell it what to be, with descriptors (ours stay ours); whether it took that.

        It may have ended meanwhile: then another has to be found, or started.
        """
        data = dumps({**order, "caller": os.getpid()}).encode()
        try:
            send_with_fds(self._sock, len(data).to_bytes(4, "little") + data, fds)
            return self._sock.recv(1) == TAKEN
        except OSError:
            return False
        finally:
            self._sock.close()


def take(config: Config, launch: Launch) -> Member | None:
    """A ready sandbox for what was decided; None if there is no pool, or none that fits."""
    if launch.template is None:
        return None
    sock = _connected(config.runtime.state_root)
    if sock is None:
        return None
    try:
        sock.send(TAKE + fingerprint(config, launch).encode())
        data, fds = receive_with_fds(sock)
    except OSError:
        return None
    finally:
        sock.close()
    if not fds:
        return None
    member = socket(fileno=fds[0])
    member.settimeout(_PATIENCE_S)
    return Member(member, int(data))


def members(state_root: str) -> list[dict[str, Any]] | None:
    """What there is in the pool; None if nobody keeps one."""
    sock = _connected(state_root)
    if sock is None:
        return None
    try:
        sock.send(LIST)
        found: list[dict[str, Any]] = loads(sock.recv(_MOST_MEMBERS_TEXT))
    except (OSError, ValueError):
        return None
    finally:
        sock.close()
    return found


def _connected(state_root: str) -> socket | None:
    sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC)
    sock.settimeout(_PATIENCE_S)
    try:
        pinned = Pinned(state_root)
        try:
            sock.connect(f"{pinned.path}/{POOL_SOCKET}")
        finally:
            pinned.close()
    except OSError:  # left by one that was killed
        sock.close()
        return None
    return sock


def fingerprint(config: Config, launch: Launch) -> str:
    """All that a ready sandbox was made for: program, machine, template, settings, this code."""
    code = " ".join(_identity(path) for path in (__file__, os.path.dirname(__file__)))
    template = launch.template.key if launch.template else ""
    settings = replace(config, sources=())  # what they say counts, not where that is written
    return f"{code} {launch.program} {template} {launch.machine!r} {settings!r}"


def _identity(path: str) -> str:
    info = os.stat(path)
    return f"{info.st_dev}:{info.st_ino}:{info.st_ctime_ns}"


def receive_order(sock: socket) -> tuple[dict[str, Any], list[int]] | None:
    """What ``Member.hand`` sends; None if it never comes. Raises ``OSError``, ``ValueError``."""
    data, fds = receive_with_fds(sock)
    while data and (len(data) < 4 or len(data) < 4 + int.from_bytes(data[:4], "little")):
        more, _ = receive_with_fds(sock)
        if not more:
            break
        data += more
    if len(data) < 4 or len(data) < 4 + int.from_bytes(data[:4], "little"):
        for fd in fds:
            os.close(fd)
        return None
    return loads(data[4:]), fds


def pair() -> tuple[socket, socket]:
    """The connection of a member: the keeper's end, which it gives away, and its own."""
    from _socket import socketpair

    keeper, member = socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC)
    return keeper, member
