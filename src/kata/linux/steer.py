"""Connections to the loopback address that nobody listens for reach one listener there instead.

A classifier at the ingress of ``lo`` gives such a packet our listening socket (bpf_sk_assign); the
connection that is accepted keeps the port that was meant as its own (getsockname(2)). The rule:
whatever has a socket, listening or connected, gets its packets as ever; no packet is changed.
``program`` is pure. Sources: linux/bpf.h, tc-bpf(8); Linux 5.7.
"""

from __future__ import annotations

import _socket
import os

from kata.linux import bpf, traffic
from kata.linux import netlink as nl
from kata.linux.bpf import op
from kata.linux.netlink_socket import GONE, Rtnetlink

_KIND = 3  # BPF_PROG_TYPE_SCHED_CLS
_LOAD, _RELEASE, _LOOKUP, _ASSIGN = 68, 86, 99, 124  # the helpers
_FROM_NETWORK_HEADER = 1
_NEXT_FILTER = -1  # TC_ACT_UNSPEC
_COPY = -72  # where the stack holds the head of the packet
_TCP = 6
_EEXIST = 17
_LO = 1  # its index, in every network namespace
# what a head must have, by family: (instruction, offset, mask, value); then where the addresses
# and ports are, one after the other as in ``struct bpf_sock_tuple``, and how long they are
_BYTE, _HALF, _WORD = 0x71, 0x69, 0x61
_HEADS = {
    _socket.AF_INET: (
        ((_BYTE, 0, 0xFF, 0x45), (_HALF, 6, 0xFF3F, 0), (_BYTE, 9, 0xFF, _TCP),
         (_WORD, 16, -1, 0x0100007F)), 12, 12,
    ),
    _socket.AF_INET6: (
        ((_BYTE, 6, 0xFF, _TCP), (_WORD, 24, -1, 0), (_WORD, 28, -1, 0), (_WORD, 32, -1, 0),
         (_WORD, 36, -1, 0x01000000)), 8, 36,
    ),
}  # fmt: skip
_PROTOCOLS = {_socket.AF_INET: 0x0800, _socket.AF_INET6: 0x86DD}


def program(family: int, port: int) -> bytes:
    """The classifier of one family; ``port`` is where our listener is."""
    checks, at, size = _HEADS[family]
    where = _COPY + at
    ports = where + size - 4
    leave = [op(0xB7, 0, value=_NEXT_FILTER), op(0x95)]
    assign = [
        op(0xBF, 7, 0), op(0xBF, 1, 6), op(0xBF, 2, 7), op(0xB7, 3), op(0x85, value=_ASSIGN),
        op(0xBF, 1, 7), op(0x85, value=_RELEASE),
    ]  # fmt: skip
    lookup = [
        op(0xBF, 1, 6), op(0xBF, 2, 10), op(0x07, 2, value=where), op(0xB7, 3, value=size),
        op(0xB7, 4, value=-1), op(0xB7, 5), op(0x85, value=_LOOKUP),
    ]  # fmt: skip
    body = [
        op(0x6A, 10, 0, ports), op(0x6A, 10, 0, ports + 2, (port & 0xFF) << 8 | port >> 8),
        *lookup, op(0x15, 0, 0, len(assign)), *assign, *leave,
    ]  # fmt: skip
    # somebody's: let go of it, and leave the packet alone
    body = [
        *lookup, op(0x15, 0, 0, 4), op(0xBF, 1, 0), op(0x85, value=_RELEASE), *leave, *body,
    ]  # fmt: skip
    for how, offset, mask, value in reversed(checks):
        out = len(body) - len(leave)
        body = [
            op(how, 1, 10, _COPY + offset), op(0x54, 1, 0, 0, mask), op(0x56, 1, 0, out, value),
            *body,
        ]  # fmt: skip
    load = [
        op(0xBF, 6, 1), op(0xB7, 2), op(0xBF, 3, 10), op(0x07, 3, value=_COPY),
        op(0xB7, 4, value=at + size), op(0xB7, 5, value=_FROM_NETWORK_HEADER),
        op(0x85, value=_LOAD), op(0x55, 0, 0, len(body) - len(leave)),
    ]  # fmt: skip
    return b"".join((*load, *body))


class Steering:
    """Steers to listeners (family to port) in the namespace it is made in, until ``close``.

    What a killed process left there leads to nobody, and is replaced. Raises ``OSError``.
    """

    def __init__(self, ports: dict[int, int]) -> None:
        self._sock = Rtnetlink()
        self._families: list[int] = []
        self._own_place = False
        try:
            self._attach(ports)
        except BaseException:
            self.close()
            raise

    def _attach(self, ports: dict[int, int]) -> None:
        what = "filter what enters the loopback"
        try:
            self._sock.apply(
                [(traffic.NEWQDISC, nl.CREATE | nl.EXCLUSIVE, traffic.ingress(_LO), what)]
            )
            self._own_place = True
        except OSError as error:
            if error.errno != _EEXIST:
                raise
        for family, port in ports.items():
            fd = bpf.load(_KIND, program(family, port), what="a classifier of connections")
            try:
                body = traffic.classify(_LO, _PROTOCOLS[family], fd)
                self._sock.apply([(traffic.NEWTFILTER, nl.CREATE, body, what)])
            finally:
                os.close(fd)
            self._families.append(family)

    def close(self) -> None:
        """Take away what was put there; best effort, for the namespace may be going."""
        what = "remove the filters of the loopback"
        changes = [
            (traffic.DELTFILTER, 0, traffic.classify(_LO, _PROTOCOLS[family]), what)
            for family in self._families
        ]
        if self._own_place:
            changes.append((traffic.DELQDISC, 0, traffic.ingress(_LO), what))
        try:
            self._sock.apply(changes, GONE)
        except OSError:
            pass
        self._sock.close()
