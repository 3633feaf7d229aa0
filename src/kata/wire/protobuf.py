"""A table-driven protobuf codec (proto3 wire format) for the few messages we speak.

A message is a class whose class attributes name its fields::

    class SignalRequest(Message):
        container_id: str = string(1)
        signal: int = uint32(2)

Source: https://protobuf.dev/programming-guides/encoding/ . Unknown fields are skipped, as the
specification wants; anything malformed raises ``ProtocolError``.
"""

from __future__ import annotations

from kata.errors import ProtocolError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TypeVar

    from typing_extensions import Self

    M = TypeVar("M", bound="Message")

_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
_MAX_DEPTH = 32


class Field:
    """One field: its number, kind, and whether it repeats."""

    __slots__ = ("key", "kind", "message", "name", "number", "repeated", "value_kind")

    def __init__(
        self, number: int, kind: str, *, message: type[Message] | None = None, value_kind: str = ""
    ) -> None:
        self.name = ""
        self.number = number
        self.kind = kind
        self.message = message
        self.repeated = False
        self.value_kind = value_kind
        wire = _LENGTH if kind in _LENGTH_KINDS else _FIXED64 if kind == "double" else _VARINT
        self.key = _varint(number << 3 | wire)

    def default(self) -> Any:
        if self.repeated:
            return []
        return _DEFAULTS[self.kind]() if self.kind in _DEFAULTS else 0


_LENGTH_KINDS = frozenset(("string", "bytes", "message", "map"))
_DEFAULTS: dict[str, Any] = {
    "string": str, "bytes": bytes, "message": lambda: None, "map": dict, "bool": bool,
    "double": float,
}  # fmt: skip


def _varint(value: int) -> bytes:
    if value < 0:
        value += 1 << 64
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def string(number: int) -> Any:
    """A UTF-8 string field."""
    return Field(number, "string")


def bytes_(number: int) -> Any:
    """A bytes field."""
    return Field(number, "bytes")


def uint32(number: int) -> Any:
    """An unsigned 32-bit field."""
    return Field(number, "uint32")


def uint64(number: int) -> Any:
    """An unsigned 64-bit field."""
    return Field(number, "uint64")


def int32(number: int) -> Any:
    """A signed 32-bit field (negative values take ten bytes, as in protobuf); also enums."""
    return Field(number, "int32")


def int64(number: int) -> Any:
    """A signed 64-bit field."""
    return Field(number, "int64")


def boolean(number: int) -> Any:
    """A boolean field."""
    return Field(number, "bool")


def double(number: int) -> Any:
    """A 64-bit floating point field."""
    return Field(number, "double")


def nested(cls: type[Message], number: int) -> Any:
    """A nested message, ``None`` when absent."""
    return Field(number, "message", message=cls)


def repeated(field: Any) -> Any:
    """A list of what ``field`` describes; scalars are packed, as proto3 does."""
    field.repeated = True
    if field.kind not in _LENGTH_KINDS:
        field.key = _varint(field.number << 3 | _LENGTH)
    return field


def mapping(number: int, value_kind: str = "string") -> Any:
    """A ``map<string, string|bytes|…>`` field (``value_kind`` is a scalar kind)."""
    return Field(number, "map", value_kind=value_kind)


class Message:
    """Base of all messages: keyword constructor, equality, ``encode`` and ``decode``."""

    FIELDS: tuple[Field, ...] = ()
    _by_number: dict[int, Field] = {}

    def __init_subclass__(cls) -> None:
        own = []
        for name, value in list(cls.__dict__.items()):
            if isinstance(value, Field):
                value.name = name
                own.append(value)
                delattr(cls, name)
        cls.FIELDS = (*cls.FIELDS, *own)
        cls._by_number = {field.number: field for field in cls.FIELDS}

    def __init__(self, **values: Any) -> None:
        state = self.__dict__
        for field in self.FIELDS:
            name = field.name
            state[name] = values.pop(name) if name in values else field.default()
        if values:
            raise TypeError(f"{type(self).__name__} has no field {sorted(values)}")

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self.__dict__ == other.__dict__

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        shown = (f"{k}={v!r}" for k, v in self.__dict__.items() if v not in (None, "", b"", 0, []))
        return f"{type(self).__name__}({', '.join(shown)})"

    def encode(self) -> bytes:
        """The message as protobuf bytes; fields at their default are left out."""
        out: list[bytes] = []
        state = self.__dict__
        for field in self.FIELDS:
            value = state[field.name]
            if value or (value is not None and field.kind == "message"):
                _encode_field(out, field, value)
        return b"".join(out)

    @classmethod
    def decode(cls, data: bytes, _depth: int = 0) -> Self:
        """A message from bytes; raises ``ProtocolError`` if they are malformed."""
        if _depth > _MAX_DEPTH:
            raise ProtocolError("protobuf: messages nested too deeply")
        result = cls()
        try:
            _decode_into(result, data, _depth)
        except (IndexError, UnicodeDecodeError, ValueError) as error:
            raise ProtocolError(f"protobuf: malformed {cls.__name__}", why=str(error)) from None
        return result


def _encode_field(out: list[bytes], field: Field, value: Any) -> None:
    kind = field.kind
    if kind == "map":
        for key, item in value.items():
            entry = _entry(field, key, item)
            out += (field.key, _varint(len(entry)), entry)
    elif not field.repeated:
        out.append(field.key)
        _encode_value(out, kind, value)
    elif kind in _LENGTH_KINDS:
        for item in value:
            out.append(field.key)
            _encode_value(out, kind, item)
    else:
        packed: list[bytes] = []
        for item in value:
            _encode_value(packed, kind, item)
        body = b"".join(packed)
        out += (field.key, _varint(len(body)), body)


def _entry(field: Field, key: str, item: Any) -> bytes:
    """One map entry, a message of key = 1 and value = 2."""
    out = [b"\x0a"]
    _encode_value(out, "string", key)
    out.append(Field(2, field.value_kind).key)
    _encode_value(out, field.value_kind, item)
    return b"".join(out)


def _encode_value(out: list[bytes], kind: str, value: Any) -> None:
    if kind == "string":
        value = value.encode("utf-8", "surrogateescape")
    elif kind == "message":
        value = value.encode()
    elif kind == "double":
        from _struct import pack

        out.append(pack("<d", value))
        return
    elif kind != "bytes":
        out.append(_varint(int(value)))
        return
    out += (_varint(len(value)), value)


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    byte = data[at]
    at += 1
    if byte < 0x80:
        return byte, at
    value = byte & 0x7F
    shift = 7
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFFFFFFFFFFFFFF, at
        shift += 7
        if shift > 63:
            raise ValueError("varint longer than ten bytes")


def _read_raw(data: bytes, at: int, wire: int) -> tuple[int | bytes, int]:
    if wire == _VARINT:
        return _read_varint(data, at)
    if wire == _LENGTH:
        size, at = _read_varint(data, at)
    elif wire == _FIXED64:
        size = 8
    elif wire == _FIXED32:
        size = 4
    else:
        raise ValueError(f"wire type {wire}")
    end = at + size
    if end > len(data):
        raise ValueError("field runs past the end")
    return data[at:end], end


def _decode_into(result: Message, data: bytes, depth: int) -> None:
    at, end = 0, len(data)
    state = result.__dict__
    by_number = result._by_number
    while at < end:
        key, at = _read_varint(data, at)
        if not key >> 3:
            raise ValueError("field number 0")
        raw, at = _read_raw(data, at, key & 7)
        field = by_number.get(key >> 3)
        if field is None:
            continue
        if field.kind == "map":
            name, item = _decode_entry(field, _as_bytes(raw))
            state[field.name][name] = item
        elif not field.repeated:
            value = _decode_value(field, raw, depth)
            state[field.name] = value
        elif field.kind not in _LENGTH_KINDS and isinstance(raw, bytes) and key & 7 == _LENGTH:
            _decode_packed(field, raw, state[field.name])
        else:
            state[field.name].append(_decode_value(field, raw, depth))


def _as_bytes(raw: int | bytes) -> bytes:
    if isinstance(raw, int):
        raise ValueError("wrong wire type")  # noqa: TRY004 - data, not a type of ours
    return raw


def _decode_packed(field: Field, raw: bytes, into: list[Any]) -> None:
    at = 0
    wire = _FIXED64 if field.kind == "double" else _VARINT
    while at < len(raw):
        item, at = _read_raw(raw, at, wire)
        into.append(_decode_value(field, item, 0))


def _decode_entry(field: Field, data: bytes) -> tuple[str, Any]:
    at = 0
    key = ""
    value_field = Field(2, field.value_kind)
    value = value_field.default()
    while at < len(data):
        tag, at = _read_varint(data, at)
        raw, at = _read_raw(data, at, tag & 7)
        if tag >> 3 == 1:
            key = _as_bytes(raw).decode("utf-8", "surrogateescape")
        elif tag >> 3 == 2:
            value = _decode_value(value_field, raw, 0)
    return key, value


def _decode_value(field: Field, raw: int | bytes, depth: int) -> Any:
    kind = field.kind
    if kind == "double":
        from _struct import unpack

        data = _as_bytes(raw)
        if len(data) != 8:
            raise ValueError("wrong wire type")
        return unpack("<d", data)[0]
    if kind in _LENGTH_KINDS:
        data = _as_bytes(raw)
        if kind == "string":
            return data.decode("utf-8", "surrogateescape")
        if kind == "message":
            assert field.message is not None
            return field.message.decode(data, depth + 1)
        return data
    if not isinstance(raw, int):
        raise ValueError("wrong wire type")  # noqa: TRY004 - data, not a type of ours
    if kind == "bool":
        return raw != 0
    if kind == "uint32":
        return raw & 0xFFFFFFFF
    if kind == "int32":
        raw &= 0xFFFFFFFF
        return raw - (1 << 32) if raw >> 31 else raw
    if kind == "int64":
        return raw - (1 << 64) if raw >> 63 else raw
    return raw


def describe(cls: type[Message]) -> str:
    """A canonical text of a message's table, for hashing and comparing."""
    rows = []
    for field in sorted(cls.FIELDS, key=lambda f: f.number):
        kind = field.message.__name__ if field.message else field.kind
        rows.append(f"{field.number}:{field.name}:{kind}:{field.value_kind}:{int(field.repeated)}")
    return f"{cls.__name__}({','.join(rows)})"
