"""The protobuf codec agrees with the protobuf library, and survives whatever a peer sends."""

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from kata.errors import ProtocolError
from kata.wire import agent_api, ttrpc
from kata.wire.protobuf import (
    MAX_ITEMS,
    Message,
    boolean,
    bytes_,
    double,
    int32,
    int64,
    mapping,
    nested,
    repeated,
    string,
    uint32,
    uint64,
)
from support.oracle import Oracle, fill, ours_of, values


class Inner(Message):
    """A nested message."""

    name: str = string(1)
    numbers: list[int] = repeated(int32(2))


class Everything(Message):
    """Every kind of field there is; not in the order of the numbers."""

    text: str = string(200)
    data: bytes = bytes_(2)
    small: int = int32(3)
    large: int = int64(4)
    natural: int = uint32(5)
    huge: int = uint64(6)
    truth: bool = boolean(7)
    real: float = double(8)
    inner: Inner | None = nested(Inner, 9)
    inners: list[Inner] = repeated(nested(Inner, 10))
    texts: list[str] = repeated(string(11))
    packed: list[int] = repeated(int64(12))
    reals: list[float] = repeated(double(13))
    truths: list[bool] = repeated(boolean(14))
    table: dict[str, str] = mapping(15)
    counts: dict[str, int] = mapping(16, "int64")
    blobs: dict[str, bytes] = mapping(17, "bytes")
    ratios: dict[str, float] = mapping(18, "double")


class Few(Message):
    """A later reader, or an earlier one, of ``Everything``: fields it does not know."""

    huge: int = uint64(6)


API = sorted(
    {cls for pair in agent_api.METHODS.values() for cls in pair}
    | {ttrpc.RequestMessage, ttrpc.ResponseMessage, ttrpc.ErrorDetail},
    key=lambda cls: cls.__name__,
)
ORACLE = Oracle(Everything, *API)
RAW_ORACLE = Oracle(Everything, raw=True)
ANY = st.sampled_from([Everything, Few, *API])


@pytest.mark.parametrize("cls", [Everything, *API], ids=lambda cls: cls.__name__)
@given(data=st.data())
def test_both_ways_against_the_library(cls, data):
    """What we encode the library reads as meant, and what it encodes we read as meant."""
    ours = data.draw(values(cls))
    theirs = fill(ORACLE[cls](), ours)
    assert ORACLE[cls].FromString(ours.encode()) == theirs
    assert cls.decode(theirs.SerializeToString()) == ours
    assert cls.decode(ours.encode()) == ours


@given(values(Inner))
def test_bytes_are_the_library_s(ours):
    """Without maps, the bytes are the very same: fields by number, scalars packed."""
    oracle = Oracle(Inner)
    assert ours.encode() == fill(oracle[Inner](), ours).SerializeToString()


@given(values(Everything), values(Everything))
def test_parts_are_merged(first, second):
    """Two encodings one after the other are one message: the last wins, lists and messages join."""
    joined = first.encode() + second.encode()
    expected = ORACLE[Everything].FromString(joined)
    assert Everything.decode(joined) == ours_of(Everything, expected)


@given(values(Everything))
def test_unknown_fields_are_skipped(message):
    """A reader that knows one field of many finds it."""
    assert Few.decode(message.encode()) == Few(huge=message.huge)


@given(st.lists(st.integers(-(1 << 63), (1 << 63) - 1)))
def test_unpacked_lists_are_read(numbers):
    """Scalars in a list may come one field each, as proto2 writers send them."""
    one_each = b"".join(Everything(large=n).encode() or b"\x20\x00" for n in numbers)
    unpacked = bytearray()
    at = 0
    while at < len(one_each):
        end = at + 1
        while one_each[end] & 0x80:
            end += 1
        unpacked += b"\x60" + one_each[at + 1 : end + 1]
        at = end + 1
    assert Everything.decode(bytes(unpacked)).packed == numbers


@given(ANY, st.binary(max_size=200))
def test_garbage_is_a_protocol_error(cls, data):
    """Arbitrary bytes give a message or a ProtocolError, nothing else."""
    try:
        message = cls.decode(data)
    except ProtocolError:
        return
    assert cls.decode(message.encode()) == message or message != message  # noqa: PLR0124 - nan


@given(values(Everything), st.data())
def test_damage_is_a_protocol_error(message, data):
    """A message with some bytes changed or cut gives a message or a ProtocolError."""
    raw = bytearray(message.encode()) or bytearray(1)
    for at in data.draw(st.lists(st.integers(0, len(raw) - 1), max_size=3)):
        raw[at] = data.draw(st.integers(0, 255))
    try:
        Everything.decode(bytes(raw[: data.draw(st.integers(0, len(raw)))]))
    except ProtocolError:
        pass


@given(values(Everything), st.data())
def test_never_more_lenient_than_the_library(message, data):
    """What the library refuses as malformed we refuse too."""
    raw = bytearray(message.encode()) or bytearray(1)
    for at in data.draw(st.lists(st.integers(0, len(raw) - 1), max_size=3)):
        raw[at] = data.draw(st.integers(0, 255))
    try:
        RAW_ORACLE[Everything].FromString(bytes(raw))
    except DecodeError:
        with pytest.raises(ProtocolError):
            Everything.decode(bytes(raw))


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"\x00\x00", "field number 0"),
        (b"\xff" * 10 + b"\x01", "longer than ten bytes"),
        (b"\x12", "cut short"),
        (b"\x12\x05ab", "past the end"),
        (b"\x0b", "wire type 3"),
        (b"\x10\x01", "wrong wire type"),
        (b"\x4a\x01\xff", "cut short"),
        (b"\x41\x00", "past the end"),
        (b"\x42\x08" + bytes(8), "wrong wire type"),
        (b"\x1d" + bytes(4), "wrong wire type"),
        (b"\x48\x00", "wrong wire type"),
        (b"\x78\x00", "wrong wire type"),
        (b"\x80\x80\x80\x80\x10\x00", "field number"),
    ],
)
def test_malformed(data, why):
    """Each way to be malformed is named."""
    with pytest.raises(ProtocolError, match=why):
        Everything.decode(data)


@pytest.mark.parametrize("key", [b"\x52\x00", b"\x60\x01", b"\x5a\x00"])
def test_lists_are_bounded(key):
    """A few megabytes of empty items do not become gigabytes of objects."""
    assert Everything.decode(key * MAX_ITEMS)
    with pytest.raises(ProtocolError, match=f"more than {MAX_ITEMS} items"):
        Everything.decode(key * (MAX_ITEMS + 1))


def test_packed_lists_and_maps_are_bounded():
    """The same for packed scalars and for maps."""
    size = MAX_ITEMS + 1
    with pytest.raises(ProtocolError, match="more than"):
        Everything.decode(Everything(packed=[1] * size).encode())
    with pytest.raises(ProtocolError, match="more than"):
        Everything.decode(Everything(table={str(n): "" for n in range(size)}).encode())


@given(st.binary())
def test_text_that_is_no_utf8_travels_unchanged(raw):
    """A path of any bytes survives both ways."""
    text = raw.decode("utf-8", "surrogateescape")
    encoded = Inner(name=text).encode()
    assert raw in encoded
    assert Inner.decode(encoded).name == text


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("small", 1 << 31), ("small", -(1 << 31) - 1), ("large", 1 << 63), ("natural", -1),
        ("natural", 1 << 32), ("huge", -1), ("huge", 1 << 64), ("truth", 2),
        ("packed", [1, 1 << 63]), ("counts", {"a": -(1 << 63) - 1}),
    ],
)  # fmt: skip
def test_numbers_that_do_not_fit_are_refused(field, value):
    """A number its field cannot hold is never sent as another number."""
    with pytest.raises(ValueError, match="is no"):
        Everything(**{field: value}).encode()


def test_unknown_names_and_double_numbers_are_refused():
    """A misspelt field, and two fields of one number, are errors of the programmer."""
    with pytest.raises(TypeError, match="colour"):
        Inner(colour=1)
    with pytest.raises(TypeError, match="two fields"):
        type("Twice", (Message,), {"a": string(1), "b": string(1)})


def test_messages_of_different_classes_differ():
    """Equality is by class and contents; messages are not hashable, since they can change."""
    assert Few() != agent_api.Empty()
    assert Few(huge=1) != Few()
    assert repr(Few(huge=1)) == "Few(huge=1)"
    with pytest.raises(TypeError):
        hash(Few())


def test_defaults_are_not_shared():
    """Two messages have two lists."""
    one, other = Everything(), Everything()
    one.texts.append("x")
    one.table["x"] = "y"
    assert other == Everything()
