"""The programs that redirect sockets, run by a small interpreter as the kernel runs them."""

from __future__ import annotations

from _struct import Struct

import pytest

from kata.linux.redirect import Redirect, program

WORD = (1 << 32) - 1
COOKIE = 0x9ABCDEF012345678
WANTED = Redirect(bytes((127, 0, 0, 11)), 53, 0xC123, COOKIE)
MAPPED = bytes(10) + b"\xff\xff"


def run(code: bytes, address: bytes, port: int, cookie: int = COOKIE) -> int:
    """The port after the program; it must let the call pass."""
    context = bytearray(64)
    at = 4 if len(address) == 4 else 8
    context[at : at + len(address)] = address
    context[24:26] = port.to_bytes(2, "big")
    code_words = list(Struct("<BBhi").iter_unpack(code))
    registers, at = [0] * 11, 0
    while True:
        operation, both, offset, value = code_words[at]
        dst, src = both & 15, both >> 4
        at += 1
        match operation:
            case 0xBF:
                registers[dst] = registers[src]
            case 0xB7 | 0xB4:
                registers[dst] = value
            case 0x61:
                registers[dst] = int.from_bytes(context[offset : offset + 4], "little")
            case 0x63:
                context[offset : offset + 4] = (registers[src] & WORD).to_bytes(4, "little")
            case 0x56:
                at += offset if registers[dst] & WORD != value & WORD else 0
            case 0x5D:
                at += offset if registers[dst] != registers[src] else 0
            case 0x85:
                assert value == 122
                registers[0] = cookie
            case 0x18:
                registers[dst] = (value & WORD) | (code_words[at][3] & WORD) << 32
                at += 1
            case 0x95:
                assert registers[0] == 1
                return int.from_bytes(context[24:26], "big")
            case _:
                raise AssertionError(hex(operation))


@pytest.mark.parametrize("mapped", [False, True])
@pytest.mark.parametrize("back", [False, True])
def test_one_address_and_port_in_one_namespace(mapped, back):
    """Exactly these get the other port; anything that differs in one thing keeps its own."""
    code = program(WANTED, mapped=mapped, back=back)
    prefix = MAPPED if mapped else b""
    old, new = (0xC123, 53) if back else (53, 0xC123)
    here = prefix + WANTED.address
    assert run(code, here, old) == new
    assert run(code, here, new) == new
    assert run(code, here, old + 256) == old + 256
    assert run(code, here, old, COOKIE + 1) == old
    assert run(code, here, old, COOKIE ^ 1 << 60) == old
    assert run(code, prefix + bytes((127, 0, 0, 12)), old) == old
    if mapped:
        assert run(code, bytes(12) + WANTED.address, old) == old
        assert run(code, b"\x20" + here[1:], old) == old
