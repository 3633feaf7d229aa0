"""A table-driven protobuf codec (proto3 wire format) for the few messages we speak.

A message is a class whose class attributes name its fields::

    class SignalRequest(Message):
        container_id: str = string(1)
        signal: int = uint32(2)

Source: https://protobuf.dev/programming-guides/encoding/ . Unknown fields are skipped, as the
specification wants; anything malformed raises ``ProtocolError``, and so does what only a hostile
peer sends: groups, a known field of another wire type, lists and maps beyond ``MAX_ITEMS``
(two bytes on the wire can cost half a kilobyte here). Strings may hold bytes that are no UTF-8
(paths do): they travel unchanged, as ``os.fsdecode`` reads them. Messages cannot contain
themselves, so the tables bound the depth.
"""

from __future__ import annotations

from kata.errors import ProtocolError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Self

MAX_ITEMS = 1 << 16  # of one list or map
_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
_MASK = (1 << 64) - 1
_LAST_NUMBER = (1 << 29) - 1


class Field:
    """One field: its number, kind, and whether it repeats."""

    __slots__ = ("key", "kind", "message", "name", "number", "repeated", "value", "value_kind")

    def __init__(
        self, number: int, kind: str, *, message: type[Message] | None = None, value_kind: str = ""
    ) -> None:
        self.name = ""
        self.number = number
        self.kind = kind
        self.message = message
        self.repeated = False
        self.value_kind = value_kind
        self.value = self  # of a map: the field its values are encoded as
        wire = _LENGTH if kind in _LENGTH_KINDS else _FIXED64 if kind == "double" else _VARINT
        self.key = _varint(number << 3 | wire)

    def default(self) -> Any:
        """The value of the field when it is absent; a new one where it can be changed."""
        if self.repeated:
            return []
        return {} if self.kind == "map" else _DEFAULTS.get(self.kind, 0)


_LENGTH_KINDS = frozenset(("string", "bytes", "message", "map"))
_DEFAULTS: dict[str, Any] = {
    "string": "", "bytes": b"", "message": None, "bool": False, "double": 0.0,
}  # fmt: skip
_RANGES = {
    "bool": (0, 1),
    "int32": (-1 << 31, (1 << 31) - 1),
    "int64": (-1 << 63, (1 << 63) - 1),
    "uint32": (0, (1 << 32) - 1),
    "uint64": (0, _MASK),
}


def _varint(value: int) -> bytes:
    if 0 <= value <= 0x7F:
        return _ONE_BYTE[value]
    value &= _MASK
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


_ONE_BYTE = tuple(bytes((value,)) for value in range(0x80))


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
    field = Field(number, "map", value_kind=value_kind)
    field.value = Field(2, value_kind)
    return field


class Message:
    """Base of all messages: keyword constructor, equality, ``encode`` and ``decode``."""

    FIELDS: tuple[Field, ...] = ()  # by number, the order they are sent in
    _by_number: dict[int, Field] = {}

    def __init_subclass__(cls) -> None:
        own = {name: value for name, value in cls.__dict__.items() if isinstance(value, Field)}
        for name, field in own.items():
            field.name = name
            delattr(cls, name)
        cls.FIELDS = tuple(sorted((*cls.FIELDS, *own.values()), key=lambda field: field.number))
        cls._by_number = {field.number: field for field in cls.FIELDS}
        if len(cls._by_number) < len(cls.FIELDS):
            raise TypeError(f"{cls.__name__} has two fields of one number")

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
        """The message as protobuf bytes; fields at their default are left out.

        Raises ``ValueError`` for a number its field cannot hold.
        """
        out: list[bytes] = []
        state = self.__dict__
        for field in self.FIELDS:
            value = state[field.name]
            if value or (value is not None and field.kind == "message") or _is_minus_zero(value):
                _encode_field(out, field, value)
        return b"".join(out)

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """A message from bytes; raises ``ProtocolError`` if they are malformed."""
        result = cls()
        try:
            _decode_into(result, data)
        except IndexError:
            raise ProtocolError(f"protobuf: malformed {cls.__name__}", why="cut short") from None
        except ValueError as error:
            raise ProtocolError(f"protobuf: malformed {cls.__name__}", why=str(error)) from None
        return result


def _is_minus_zero(value: object) -> bool:
    """Equal to the default of a double, and yet another number."""
    return type(value) is float and str(value) == "-0.0"


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
    out.append(field.value.key)
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
        low, high = _RANGES[kind]
        if not low <= value <= high:
            raise ValueError(f"{value} is no {kind}")
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
            return value & _MASK, at
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


def _read_key(data: bytes, at: int) -> tuple[int, int, int]:
    key, at = _read_varint(data, at)
    number = key >> 3
    if not 0 < number <= _LAST_NUMBER:
        raise ValueError(f"field number {number}")
    return number, key & 7, at


def _decode_into(result: Message, data: bytes) -> None:
    at, end = 0, len(data)
    state = result.__dict__
    by_number = result._by_number
    while at < end:
        number, wire, at = _read_key(data, at)
        raw, at = _read_raw(data, at, wire)
        field = by_number.get(number)
        if field is None:
            continue
        if field.repeated or field.kind == "map":
            _decode_item(field, raw, wire, state[field.name])
        elif field.message is not None and state[field.name] is not None:
            _decode_into(state[field.name], _as_bytes(raw))  # a second part of it is merged
        else:
            state[field.name] = _decode_value(field, raw, wire)


def _decode_item(field: Field, raw: int | bytes, wire: int, into: Any) -> None:
    if field.kind == "map":
        name, item = _decode_entry(field, _as_bytes(raw))
        into[name] = item
    elif wire == _LENGTH and field.kind not in _LENGTH_KINDS:
        _decode_packed(field, _as_bytes(raw), into)
    else:
        into.append(_decode_value(field, raw, wire))
    if len(into) > MAX_ITEMS:
        raise ValueError(f"more than {MAX_ITEMS} items of {field.name}")


def _as_bytes(raw: int | bytes) -> bytes:
    if isinstance(raw, int):
        raise ValueError("wrong wire type")  # noqa: TRY004 - data, not a type of ours
    return raw


def _decode_packed(field: Field, raw: bytes, into: list[Any]) -> None:
    at = 0
    wire = _FIXED64 if field.kind == "double" else _VARINT
    while at < len(raw) and len(into) <= MAX_ITEMS:
        item, at = _read_raw(raw, at, wire)
        into.append(_decode_value(field, item, wire))


def _decode_entry(field: Field, data: bytes) -> tuple[str, Any]:
    at = 0
    key = ""
    value = field.value.default()
    while at < len(data):
        number, wire, at = _read_key(data, at)
        raw, at = _read_raw(data, at, wire)
        if number == 1:
            key = _as_bytes(raw).decode("utf-8", "surrogateescape")
        elif number == 2:
            value = _decode_value(field.value, raw, wire)
    return key, value


def _decode_value(field: Field, raw: int | bytes, wire: int) -> Any:
    kind = field.kind
    if isinstance(raw, int):
        return _decode_integer(kind, raw)
    if kind == "double" and wire == _FIXED64:
        from _struct import unpack

        return unpack("<d", raw)[0]
    if wire != _LENGTH:
        raise ValueError("wrong wire type")
    if kind == "string":
        return raw.decode("utf-8", "surrogateescape")
    if kind == "bytes":
        return raw
    if field.message is None:
        raise ValueError("wrong wire type")
    return field.message.decode(raw)


def _decode_integer(kind: str, raw: int) -> int:
    if kind == "bool":
        return raw != 0
    if kind == "uint32":
        return raw & 0xFFFFFFFF
    if kind == "int32":
        raw &= 0xFFFFFFFF
        return raw - (1 << 32) if raw >> 31 else raw
    if kind == "int64":
        return raw - (1 << 64) if raw >> 63 else raw
    if kind != "uint64":
        raise ValueError("wrong wire type")
    return raw


def describe(cls: type[Message]) -> str:
    """A canonical text of a message's table, for hashing and comparing."""
    rows = []
    for field in sorted(cls.FIELDS, key=lambda f: f.number):
        kind = field.message.__name__ if field.message else field.kind
        rows.append(f"{field.number}:{field.name}:{kind}:{field.value_kind}:{int(field.repeated)}")
    return f"{cls.__name__}({','.join(rows)})"
