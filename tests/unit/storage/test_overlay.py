"""Overlays as engines ask for them: what their options mean."""

import pytest

from kata.errors import InvalidInput
from kata.storage.overlay import Overlay, of, view


def test_what_an_overlay_is_made_of():
    """Directories in order, the upper one and its other, and what is the file system's own."""
    options = [
        "lowerdir=/a:/b", "upperdir=/u", "workdir=/w", "private", "ro", "nosuid", "volatile",
        "metacopy=on",
    ]  # fmt: skip
    own = (("volatile", ""), ("metacopy", "on"))
    assert of(options) == Overlay(("/a", "/b"), "/u", "/w", own)


def test_colons_in_paths():
    """A colon of a path has a backslash before it, and a backslash too."""
    assert of([r"lowerdir=/a\:1:/b\\2::/c"]).lower == ("/a:1", "/b\\2", "/c")


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["upperdir=/u", "workdir=/w"], "it has no lowerdir"),
        (["lowerdir="], "it has no lowerdir"),
        (["lowerdir=/a:b"], '"b"'),
        (["lowerdir=/a", "upperdir=u"], '"u"'),
        (["lowerdir=/a", "workdir=w"], '"w"'),
    ],
)
def test_what_is_none(options, why):
    """Nothing below, or directories without a place of their own, are refused."""
    with pytest.raises(InvalidInput, match=why):
        of(options)


def test_a_view_of_it():
    """The upper directory is one more layer; colons keep their backslashes."""
    options = [r"lowerdir=/a\:1:/b", "upperdir=/u", "workdir=/w", "private"]
    assert view(options) == r"lowerdir=/u:/a\:1:/b"
    assert view(["lowerdir=/a:/b", "ro"]) == "lowerdir=/a:/b"
