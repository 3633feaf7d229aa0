"""Descriptors over unix sockets, without the import cost of ``socket`` (7 ms: enum, selectors).

The one rule: sockets here are ``_socket.socket`` objects, close-on-exec; a received descriptor is
close-on-exec too.
"""

from __future__ import annotations

import _socket

from kata.linux import syscalls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_INT = 4


def pair(kind: int = _socket.SOCK_STREAM) -> tuple[_socket.socket, _socket.socket]:
    """Two connected unix sockets."""
    return _socket.socketpair(_socket.AF_UNIX, kind)


def send(sock: _socket.socket, data: bytes, fds: Sequence[int]) -> None:
    """Send ``data`` (not empty) with descriptors attached. Raises ``OSError``."""
    packed = b"".join(fd.to_bytes(_INT, "little") for fd in fds)
    sent = sock.sendmsg([data], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, packed)])
    if sent < len(data):
        sock.sendall(data[sent:])


def receive(sock: _socket.socket, size: int, most: int) -> tuple[bytes, list[int]]:
    """Up to ``size`` bytes and ``most`` descriptors, which are ours then. Raises ``OSError``."""
    room = _socket.CMSG_SPACE(most * _INT)
    data, ancillary, _, _ = sock.recvmsg(size, room, _socket.MSG_CMSG_CLOEXEC)
    fds = []
    for level, kind, packed in ancillary:
        if level == _socket.SOL_SOCKET and kind == _socket.SCM_RIGHTS:
            usable = len(packed) - len(packed) % _INT
            fds += [int.from_bytes(packed[i : i + _INT], "little") for i in range(0, usable, _INT)]
    return data, fds


def close_others(keep: list[int]) -> None:
    """Close every descriptor above 2 that is not in ``keep``."""
    first = 3
    for fd in sorted(fd for fd in keep if fd > 2):
        if fd > first:
            syscalls.close_range(first, fd - 1)
        first = fd + 1
    syscalls.close_range(first)
