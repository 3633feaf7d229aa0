"""Sockets of a control group that speak to one address and port reach another port there instead.

What iptables does to packets, done to the calls of sockets: connect(2) and sendto(2) get the other
port, recvfrom(2) is told the first one. So the port itself stays free for whoever binds it at all
addresses, and no packet is ever changed. The rule: only sockets in the caller's network namespace
are meant. ``program`` is pure. Source: linux/bpf.h, ``struct bpf_sock_addr``.
"""

from __future__ import annotations

import _socket
import os

from kata.linux import bpf
from kata.linux.bpf import op
from kata.wire.record import record

_KIND = 18  # BPF_PROG_TYPE_CGROUP_SOCK_ADDR
_CONNECT4, _CONNECT6, _SENDMSG4, _RECVMSG4, _RECVMSG6 = 10, 11, 14, 19, 20
_USER_IP4, _USER_IP6, _USER_PORT = 4, 8, 24
_NETNS_COOKIE = 122  # the helper
_SO_NETNS_COOKIE = 71
# where -> whether addresses are of version 6 there (those of version 4, mapped; what is sent to
# one passes _SENDMSG4), and whether the first port is put back
_PLACES = {
    _CONNECT4: (False, False), _SENDMSG4: (False, False), _RECVMSG4: (False, True),
    _CONNECT6: (True, False), _RECVMSG6: (True, True),
}  # fmt: skip


@record
class Redirect:
    """From ``port`` at ``address`` (four bytes) to ``target``, in the namespace ``cookie``."""

    address: bytes
    port: int
    target: int
    cookie: int


def program(wanted: Redirect, *, mapped: bool, back: bool) -> bytes:
    """The program; ``mapped`` for addresses of version 6, ``back`` for those of received data."""
    old, new = (wanted.target, wanted.port) if back else (wanted.port, wanted.target)
    words = [(_USER_PORT, _network_order(old))]
    if mapped:
        parts = (bytes(4), bytes(4), b"\0\0\xff\xff", wanted.address)
        words += [(_USER_IP6 + 4 * n, _word(part)) for n, part in enumerate(parts)]
    else:
        words.append((_USER_IP4, _word(wanted.address)))
    low, high = wanted.cookie & 0xFFFFFFFF, wanted.cookie >> 32
    body = [
        op(0x85, value=_NETNS_COOKIE),  # r1 is the context still
        op(0x18, 1, value=_signed(low)), op(0, value=_signed(high)), op(0x5D, 0, 1, 2),
        op(0xB4, 1, value=_network_order(new)), op(0x63, 6, 1, _USER_PORT),
    ]  # fmt: skip
    for offset, value in words:
        body = [op(0x61, 2, 6, offset), op(0x56, 2, 0, len(body), value), *body]
    return b"".join((op(0xBF, 6, 1), *body, op(0xB7, 0, value=1), op(0x95)))


def _network_order(port: int) -> int:
    return (port & 0xFF) << 8 | port >> 8


def _word(part: bytes) -> int:
    return _signed(int.from_bytes(part, "little"))


def _signed(value: int) -> int:
    return value - (1 << 32) if value >> 31 else value


def namespace_cookie(sock: _socket.socket) -> int:
    """The number of a socket's network namespace (SO_NETNS_COOKIE, Linux 5.14)."""
    found = sock.getsockopt(_socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8)
    return int.from_bytes(found, "little")


def attach(group: str, wanted: Redirect) -> None:
    """Redirect the sockets of a control group and those below, for as long as it exists.

    Raises ``OSError``.
    """
    for place, (mapped, back) in _PLACES.items():
        code = program(wanted, mapped=mapped, back=back)
        fd = bpf.load(_KIND, code, place=place, what="a redirection of sockets")
        try:
            bpf.attach(group, fd, place, what="a redirection of sockets")
        finally:
            os.close(fd)
