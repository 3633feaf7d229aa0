"""Maps of ids."""

from __future__ import annotations

import pytest

from kata.errors import InvalidInput
from kata.linux.users import outside, parse

TWO = [
    {"containerID": 0, "hostID": 1000, "size": 1},
    {"containerID": 1, "hostID": 100000, "size": 10},
]


def test_parse():
    """OCI's entries as numbers, in order; none are an empty map."""
    assert parse(TWO) == ((0, 1000, 1), (1, 100000, 10))
    assert parse(None) == parse([]) == ()
    assert parse([{"size": 3}]) == ((0, 0, 3),)


@pytest.mark.parametrize(("inside", "found"), [(0, 1000), (1, 100000), (10, 100009)])
def test_outside(inside, found):
    """Each id by the range that holds it, from the first to the last."""
    assert outside(parse(TWO), inside) == found


@pytest.mark.parametrize("inside", [11, 100000, -1])
def test_outside_of_the_map(inside):
    """An id of no range is an error that names it."""
    with pytest.raises(InvalidInput, match=f"the user {inside} is not in the map"):
        outside(parse(TWO), inside, "user")
