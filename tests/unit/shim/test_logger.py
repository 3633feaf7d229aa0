"""Addresses of logging programs."""

import pytest

from kata.errors import InvalidInput
from kata.shim.logger import arguments


@pytest.mark.parametrize(
    ("uri", "argv"),
    [
        ("binary:///bin/log", ["/bin/log"]),
        ("binary:///bin/log?id=x&flag", ["/bin/log", "id", "x", "flag"]),
        ("binary:///a%20b?k=%2Fv+w", ["/a b", "k", "/v w"]),
        ("binary:///a%zz?k=100%", ["/a%zz", "k", "100%"]),
        ("binary:///l?%c3%a4=1", ["/l", "ä", "1"]),
    ],
)
def test_the_query_becomes_arguments(uri, argv):
    """Keys and values, in their order, decoded."""
    assert arguments(uri) == argv


def test_a_program_without_a_path():
    """A relative path could be anything's."""
    with pytest.raises(InvalidInput):
        arguments("binary://log")
