"""Records: frozen values compared by their fields."""

import pytest

from kata.wire.record import fields, record, replace


@record
class Point:
    """Two numbers."""

    x: int
    y: int = 2


@record
class Named(Point):
    """A point with a name, and another default."""

    name: str = "here"
    y: int = 3


def test_by_position_and_by_name():
    """Fields are given by position or name, in the order written; defaults fill the rest."""
    assert Point(1) == Point(1, 2) == Point(x=1, y=2) == Point(y=2, x=1)
    assert (Point(1).x, Point(1).y) == (1, 2)


def test_inherited_fields_come_first():
    """A record extends another, its fields after the inherited, its defaults over them."""
    assert fields(Named(1)) == {"x": 1, "y": 3, "name": "here"}
    assert Named(1, 2, "there").name == "there"
    assert fields(Point(1)) == {"x": 1, "y": 2}


@pytest.mark.parametrize(
    ("args", "kwargs", "why"),
    [
        ((), {}, "'x' is missing"),
        ((1, 2, 3), {}, "takes 2 fields, got 3"),
        ((1,), {"x": 1}, "repeated field 'x'"),
        ((1,), {"z": 1}, "unexpected"),
    ],
)
def test_wrong_fields(args, kwargs, why):
    """Missing, repeated, unknown and too many fields are named."""
    with pytest.raises(TypeError, match=why):
        Point(*args, **kwargs)


def test_frozen():
    """No field can be set, added or removed."""
    point = Point(1)
    for change in (
        lambda: setattr(point, "x", 2), lambda: setattr(point, "z", 2), lambda: delattr(point, "x")
    ):  # fmt: skip
        with pytest.raises(AttributeError, match="frozen"):
            change()
    assert point == Point(1)


def test_equality_and_hash():
    """Equal by class and fields, and usable as keys."""
    assert Point(1) != Point(2)
    assert Named(1, 2) != Point(1, 2)
    assert Point(1) != (1, 2)
    assert {Point(1): "a"}[Point(1, 2)] == "a"
    assert len({Point(1), Point(1, 2), Named(1)}) == 2


def test_repr_is_code():
    """A record shows as the call that makes it."""
    assert eval(repr(Named(1)), {"Named": Named}) == Named(1)


def test_replace_makes_another():
    """A copy with changes; the original stays; unknown fields are refused."""
    point = Point(1)
    assert replace(point, y=9) == Point(1, 9)
    assert point == Point(1)
    with pytest.raises(TypeError, match="unexpected"):
        replace(point, z=1)


@pytest.mark.parametrize("default", [[], {}, set(), bytearray()])
def test_defaults_that_can_change_are_refused(default):
    """A default is shared by all values, so it must not be changeable."""
    with pytest.raises(TypeError, match="can be changed"):
        record(type("Bad", (), {"__annotations__": {"a": object}, "a": default}))
