"""The protobuf library as the oracle of our codec: the same tables as its descriptors.

The one rule: nothing here uses our encoder or decoder, only the tables.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from hypothesis import strategies as st

if TYPE_CHECKING:
    from kata.wire.protobuf import Field, Message

_KINDS = {
    "string": (9, st.text()),
    "bytes": (12, st.binary()),
    "uint32": (13, st.integers(0, (1 << 32) - 1)),
    "uint64": (4, st.integers(0, (1 << 64) - 1)),
    "int32": (5, st.integers(-(1 << 31), (1 << 31) - 1)),
    "int64": (3, st.integers(-(1 << 63), (1 << 63) - 1)),
    "bool": (8, st.booleans()),
    "double": (1, st.floats(allow_nan=False)),
}
_MESSAGE = 11
_OPTIONAL, _REPEATED = 1, 3


class Oracle:
    """Google's classes for some of our messages and all they contain.

    ``raw`` makes text bytes, and maps the lists of entries they are on the wire: then it refuses
    what is malformed, and nothing else.
    """

    def __init__(self, *classes: type[Message], raw: bool = False) -> None:
        self._raw = raw
        file = descriptor_pb2.FileDescriptorProto(
            name="ours.proto", package="ours", syntax="proto3"
        )
        self._known: set[str] = set()
        for cls in classes:
            self._describe(file, cls)
        pool = descriptor_pool.DescriptorPool()
        pool.Add(file)
        self._classes = message_factory.GetMessageClassesForFiles(["ours.proto"], pool)

    def __getitem__(self, cls: type[Message]):
        return self._classes[f"ours.{cls.__name__}"]

    def _describe(self, file, cls: type[Message]) -> None:
        if cls.__name__ in self._known:
            return
        self._known.add(cls.__name__)
        described = file.message_type.add(name=cls.__name__)
        for field in cls.FIELDS:
            if field.message is not None:
                self._describe(file, field.message)
            self._add_field(described, field)

    def _type(self, kind: str) -> int:
        return _KINDS["bytes" if self._raw and kind == "string" else kind][0]

    def _add_field(self, described, field: Field) -> None:
        label = _REPEATED if field.repeated or field.kind == "map" else _OPTIONAL
        row = described.field.add(name=field.name, number=field.number, label=label)
        if field.kind == "map":
            entry = described.nested_type.add(name=f"{field.name.title()}Entry")
            entry.options.map_entry = not self._raw
            key, value = self._type("string"), self._type(field.value_kind)
            entry.field.add(name="key", number=1, label=_OPTIONAL, type=key)
            entry.field.add(name="value", number=2, label=_OPTIONAL, type=value)
            row.type = _MESSAGE
            row.type_name = f".ours.{described.name}.{entry.name}"
        elif field.message is not None:
            row.type = _MESSAGE
            row.type_name = f".ours.{field.message.__name__}"
        else:
            row.type = self._type(field.kind)


def values(cls: type[Message]) -> st.SearchStrategy[Message]:
    """Messages of ours with any contents."""
    fields = {field.name: _values_of(field) for field in cls.FIELDS}
    return st.fixed_dictionaries({}, optional=fields).map(lambda given: cls(**given))


def _values_of(field: Field) -> st.SearchStrategy:
    if field.kind == "map":
        return st.dictionaries(st.text(), _KINDS[field.value_kind][1], max_size=4)
    one = values(field.message) if field.message is not None else _KINDS[field.kind][1]
    if field.repeated:
        return st.lists(one, max_size=4)
    return st.none() | one if field.message is not None else one


def fill(theirs, ours: Message):
    """Give a message of google's the contents of one of ours."""
    for field in ours.FIELDS:
        value = getattr(ours, field.name)
        target = getattr(theirs, field.name)
        if field.kind == "map":
            target.update(value)
        elif field.repeated and field.message is not None:
            for item in value:
                fill(target.add(), item)
        elif field.repeated:
            target.extend(value)
        elif field.message is None:
            setattr(theirs, field.name, value)
        elif value is not None:
            target.SetInParent()
            fill(target, value)
    return theirs


def ours_of(cls: type[Message], theirs) -> Message:
    """A message of ours with the contents of one of google's."""
    state = {}
    for field in cls.FIELDS:
        value = getattr(theirs, field.name)
        if field.kind == "map":
            value = dict(value)
        elif field.repeated and field.message is not None:
            value = [ours_of(field.message, item) for item in value]
        elif field.repeated:
            value = list(value)
        elif field.message is not None:
            value = ours_of(field.message, value) if theirs.HasField(field.name) else None
        state[field.name] = value
    return cls(**state)
