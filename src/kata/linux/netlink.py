"""Netlink's framing: messages and attributes, bytes to values and back.

The one rule: pure, and nothing read is larger than its frame says: a length that points outside
ends in ``ValueError``. Source: netlink(7), linux/netlink.h; little-endian, as x86-64 is.
"""

from __future__ import annotations

from _struct import Struct

from kata.wire.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

REQUEST, MULTI, ACK, ROOT_MATCH = 0x1, 0x2, 0x4, 0x300
REPLACE, EXCLUSIVE, CREATE, APPEND = 0x100, 0x200, 0x400, 0x800
CAPPED, ACK_TLVS = 0x100, 0x200  # flags of an answer
ERROR, DONE, OVERRUN = 2, 3, 4
NESTED = 0x8000
_KIND = 0x3FFF  # without NLA_F_NESTED and NLA_F_NET_BYTEORDER
_ACK_MESSAGE = 1  # NLMSGERR_ATTR_MSG
_HEAD, _ATTRIBUTE, _U32, _S32 = Struct("<IHHII"), Struct("<HH"), Struct("<I"), Struct("<i")
HEAD_SIZE = _HEAD.size


@record
class Message:
    """One message: its type, flags, sequence number and what follows the header."""

    kind: int
    flags: int
    number: int
    body: bytes


def message(kind: int, flags: int, number: int, body: bytes) -> bytes:
    """A message, padded for the next one."""
    size = HEAD_SIZE + len(body)
    return _HEAD.pack(size, kind, flags, number, 0) + body + bytes(-size % 4)


def messages(data: bytes) -> Iterator[Message]:
    """The messages of one datagram. Raises ``ValueError``."""
    at = 0
    while at < len(data):
        if at + HEAD_SIZE > len(data):
            raise ValueError("a netlink message ends in its header")
        size, kind, flags, number, _ = _HEAD.unpack_from(data, at)
        if size < HEAD_SIZE or at + size > len(data):
            raise ValueError("a netlink message is longer than its datagram")
        yield Message(kind, flags, number, data[at + HEAD_SIZE : at + size])
        at += size + -size % 4


def attribute(kind: int, value: bytes) -> bytes:
    """An attribute, padded for the next one."""
    size = 4 + len(value)
    return _ATTRIBUTE.pack(size, kind) + value + bytes(-size % 4)


def number(kind: int, value: int) -> bytes:
    """An attribute that is a 32-bit number."""
    return attribute(kind, _U32.pack(value))


def text(kind: int, value: str) -> bytes:
    """An attribute that is text with a zero byte after it."""
    return attribute(kind, value.encode() + b"\0")


def nest(kind: int, *parts: bytes) -> bytes:
    """An attribute made of attributes."""
    return attribute(kind | NESTED, b"".join(parts))


def each_attribute(data: bytes, at: int = 0) -> Iterator[tuple[int, bytes]]:
    """The attributes from ``at`` on, flags of their types left out. Raises ``ValueError``."""
    while at + 4 <= len(data):
        size, kind = _ATTRIBUTE.unpack_from(data, at)
        if size < 4 or at + size > len(data):
            raise ValueError("a netlink attribute is longer than its message")
        yield kind & _KIND, data[at + 4 : at + size]
        at += size + -size % 4


def attributes(data: bytes, at: int = 0) -> dict[int, bytes]:
    """Attributes by type; of two with the same type the last. Raises ``ValueError``."""
    return dict(each_attribute(data, at))


def number_of(value: bytes | None) -> int:
    """The number in an attribute of any width, 0 if there is none."""
    return int.from_bytes(value or b"", "little")


def text_of(value: bytes | None) -> str:
    """The text in an attribute, up to its first zero byte; "" if there is none."""
    return (value or b"").split(b"\0", 1)[0].decode(errors="replace")


def failure(answer: Message) -> tuple[int, str]:
    """The errno of an answer of the type ERROR (0: done), and what the kernel says about it."""
    if len(answer.body) < 4:
        raise ValueError("a netlink error without a number")
    [code] = _S32.unpack_from(answer.body)
    if not code or not answer.flags & ACK_TLVS or len(answer.body) < 4 + HEAD_SIZE:
        return -code, ""
    at = 4 + HEAD_SIZE
    if not answer.flags & CAPPED:
        [size, *_] = _HEAD.unpack_from(answer.body, 4)
        at = 4 + size + -size % 4
    return -code, text_of(attributes(answer.body, at).get(_ACK_MESSAGE))


def join(parts: Iterable[bytes]) -> bytes:
    """Several messages for one datagram."""
    return b"".join(parts)
