"""The classifier of connections, run by a small interpreter as the kernel runs it."""

from __future__ import annotations

from _struct import Struct
from socket import AF_INET, AF_INET6

import pytest

from kata.linux.steer import program

PORT, MEANT, SOURCE = 0xC123, 8100, 40001
MASK = (1 << 64) - 1
SKB, STACK, SOCK = 1 << 40, 1 << 41, 1 << 42
V4, V6 = bytes((127, 0, 0, 1)), bytes(15) + b"\1"


def packet(family: int, to: bytes = b"", **changes: int) -> bytes:
    """The head of a packet from its network header on; ``changes``: ``b9`` sets byte 9."""
    if family == AF_INET:
        head = bytearray(b"\x45" + bytes(8) + b"\x06" + bytes(2) + V4 + (to or V4))
        head[6] = 0x40  # not to be fragmented
    else:
        head = bytearray(b"\x60" + bytes(5) + b"\x06\x40" + V6 + (to or V6))
    head += SOURCE.to_bytes(2, "big") + MEANT.to_bytes(2, "big") + bytes(16)
    for name, value in changes.items():
        head[int(name[1:])] = value
    return bytes(head)


class Kernel:
    """Helpers, and which (source port, port) has a socket; what was assigned."""

    def __init__(self, head: bytes, sockets: set[tuple[int, int]]) -> None:
        self.head, self.sockets = head, sockets
        self.stack = bytearray(512)
        self.asked: list[bytes] = []
        self.held = 0
        self.assigned = False

    def call(self, number: int, r: list[int]) -> int:
        if number == 68:
            assert (r[1], r[5]) == (SKB, 1)
            if r[2] + r[4] > len(self.head):
                return -14 & MASK
            at = r[3] - STACK
            self.stack[at : at + r[4]] = self.head[r[2] : r[2] + r[4]]
            return 0
        if number == 99:
            assert (r[1], r[4], r[5]) == (SKB, MASK, 0)
            at = r[2] - STACK
            self.asked.append(bytes(self.stack[at : at + r[3]]))
            ports = self.asked[-1][-4:]
            pair = int.from_bytes(ports[:2], "big"), int.from_bytes(ports[2:], "big")
            found = pair in self.sockets or (0, pair[1]) in self.sockets
            self.held += found
            return SOCK if found else 0
        if number == 86:
            assert r[1] == SOCK
            self.held -= 1
            return 0
        assert (number, r[1], r[2], r[3]) == (124, SKB, SOCK, 0)
        self.assigned = True
        return 0

    def run(self, code: bytes) -> None:
        """Run it; it must leave the packet to whoever is next, and no socket held."""
        words = list(Struct("<BBhi").iter_unpack(code))
        r, at = [0] * 11, 0
        r[1], r[10] = SKB, STACK + 512
        while True:
            operation, both, offset, value = words[at]
            dst, src = both & 15, both >> 4
            at += 1
            match operation:
                case 0xBF:
                    r[dst] = r[src]
                case 0xB7:
                    r[dst] = value & MASK
                case 0x07:
                    r[dst] = r[dst] + value & MASK
                case 0x54:
                    r[dst] = r[dst] & value & 0xFFFFFFFF
                case 0x71 | 0x69 | 0x61:
                    size, where = {0x71: 1, 0x69: 2, 0x61: 4}[operation], r[src] + offset - STACK
                    r[dst] = int.from_bytes(self.stack[where : where + size], "little")
                case 0x6A:
                    where = r[dst] + offset - STACK
                    self.stack[where : where + 2] = (value & 0xFFFF).to_bytes(2, "little")
                case 0x55:
                    at += offset if r[dst] != value & MASK else 0
                case 0x56:
                    at += offset if r[dst] & 0xFFFFFFFF != value & 0xFFFFFFFF else 0
                case 0x15:
                    at += offset if r[dst] == value & MASK else 0
                case 0x85:
                    r[0] = self.call(value, r)
                    r[1:6] = [-1] * 5  # nothing is kept there
                case 0x95:
                    assert r[0] == MASK
                    assert self.held == 0
                    return
                case _:
                    raise AssertionError(hex(operation))


def steered(family: int, head: bytes, *sockets: tuple[int, int]) -> bool:
    """Whether a packet is given to our listener, which there is."""
    kernel = Kernel(head, {(0, PORT), *sockets})
    kernel.run(program(family, PORT))
    return kernel.assigned


@pytest.mark.parametrize("family", [AF_INET, AF_INET6])
def test_what_nobody_listens_for_is_ours(family):
    """The kernel is asked for exactly this connection, then for our listener."""
    kernel = Kernel(packet(family), {(0, PORT)})
    kernel.run(program(family, PORT))
    assert kernel.assigned
    address = V4 if family == AF_INET else V6
    ports = SOURCE.to_bytes(2, "big") + MEANT.to_bytes(2, "big")
    listener = bytes(2) + PORT.to_bytes(2, "big")
    assert kernel.asked == [address * 2 + ports, address * 2 + listener]


@pytest.mark.parametrize("family", [AF_INET, AF_INET6])
def test_whoever_has_a_socket_keeps_it(family):
    """A listener's port, and what belongs to a connection, are left alone."""
    assert not steered(family, packet(family), (0, MEANT))
    assert not steered(family, packet(family), (SOURCE, MEANT))
    assert steered(family, packet(family), (SOURCE + 1, MEANT))


@pytest.mark.parametrize("family", [AF_INET, AF_INET6])
def test_without_our_listener_nothing_is_done(family):
    """What a killed process left behind leads to nobody."""
    kernel = Kernel(packet(family), set())
    kernel.run(program(family, PORT))
    assert not kernel.assigned


@pytest.mark.parametrize(
    ("family", "head"),
    [
        (AF_INET, packet(AF_INET, bytes((127, 0, 0, 11)))),
        (AF_INET, packet(AF_INET, bytes((10, 0, 0, 1)))),
        (AF_INET, packet(AF_INET, b9=17)),  # UDP
        (AF_INET, packet(AF_INET, b0=0x46)),  # with options
        (AF_INET, packet(AF_INET, b6=0x20)),  # fragments, the first
        (AF_INET, packet(AF_INET, b7=1)),  # and others
        (AF_INET, packet(AF_INET)[:22]),
        (AF_INET6, packet(AF_INET6, bytes(15) + b"\2")),
        (AF_INET6, packet(AF_INET6, b"\xfe\x80" + bytes(13) + b"\1")),
        (AF_INET6, packet(AF_INET6, bytes(7) + b"\1" + bytes(7) + b"\1")),
        (AF_INET6, packet(AF_INET6, bytes(11) + b"\1" + bytes(3) + b"\1")),
        (AF_INET6, packet(AF_INET6, b6=17)),
        (AF_INET6, packet(AF_INET6)[:42]),
    ],
)
def test_other_packets_are_left_alone(family, head):
    """Other addresses, protocols, fragments, and what is too short."""
    assert not steered(family, head)
