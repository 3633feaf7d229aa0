"""SHA-256 by the interpreter's own module."""

import hashlib

from hypothesis import given
from hypothesis import strategies as st

from kata.wire.digest import sha256


@given(st.lists(st.binary(max_size=200), max_size=4))
def test_it_is_that_of_hashlib(pieces):
    """Whatever it is fed, in pieces, the digest is that of hashlib."""
    ours = sha256()
    for piece in pieces:
        ours.update(piece)
    assert ours.hexdigest() == hashlib.sha256(b"".join(pieces)).hexdigest()
