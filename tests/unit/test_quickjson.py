"""JSON without the json package: the same answers as with it."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kata.wire.quickjson import dumps, loads

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(VALUES)
def test_same_as_the_package(value):
    """Encoding is the package's, byte for byte; decoding gives the value back."""
    assert dumps(value) == json.dumps(value, separators=(",", ":"))
    plain = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    assert dumps(value, ensure_ascii=False) == plain
    assert dumps(value, indent=2) == json.dumps(value, indent=2)
    assert loads(json.dumps(value, indent=3).encode()) == value


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), -0.0, [-0.0]])
def test_odd_numbers(value):
    """Numbers JSON does not have are written as the package writes them."""
    assert dumps(value) == json.dumps(value)
    assert repr(loads(dumps(value))) == repr(value)


@pytest.mark.parametrize(
    "text",
    ["", " ", "{", "[1,]", '{"a"}', "1 2", "nul", '"\x01"', "[" * 100_000, "{a:1}", b"\xff"],
)
def test_what_is_no_json(text):
    """What is not JSON raises ValueError, however it is broken."""
    with pytest.raises(ValueError):
        loads(text)


def test_what_has_no_form():
    """A value without a JSON form is refused by type."""
    with pytest.raises(TypeError, match="bytes"):
        dumps({"a": b""})
