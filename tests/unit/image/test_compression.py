"""Compressed layers are read whole, in bounded pieces, or refused."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kata.errors import ImageError
from kata.image.compression import detect, opened

WAYS = {"gzip": gzip.compress, "bzip2": bz2.compress, "xz": lzma.compress, "none": bytes}


def plain(data: bytes, size: int = 1000) -> bytes:
    """The decompressed content, read in pieces."""
    pieces = []
    with opened(io.BytesIO(data)) as stream:
        while piece := stream.read(size):
            assert len(piece) <= size
            pieces.append(piece)
    return b"".join(pieces)


@pytest.mark.parametrize("way", WAYS)
@given(data=st.binary(max_size=5000), factor=st.integers(1, 50), size=st.integers(1, 70000))
def test_round_trip(way, data, factor, size):
    """What was compressed comes back, whatever the size of the pieces."""
    data = b"x" + data * factor
    assert plain(WAYS[way](data), size) == data
    assert detect(WAYS[way](data)[:6]) == way


@pytest.mark.parametrize("way", ["gzip", "bzip2", "xz"])
def test_several_members(way):
    """Members after each other are one stream; zeros after the last are padding."""
    data = WAYS[way](b"one") + WAYS[way](b"two")
    assert plain(data) == b"onetwo"
    assert plain(data + bytes(1000)) == b"onetwo"


@pytest.mark.parametrize("way", ["gzip", "bzip2", "xz"])
def test_damage(way):
    """A cut, a flipped bit, or something that follows is an error."""
    data = bytearray(WAYS[way](os.urandom(5000)))
    for bad in (data[:-1], data[: len(data) // 2], data[:20], data + b"garbage"):
        with pytest.raises(ImageError):
            plain(bytes(bad))
    data[len(data) // 2] ^= 1
    with pytest.raises(ImageError):
        plain(bytes(data))


def test_a_bomb_comes_in_pieces():
    """A thousandfold expansion is never held at once."""
    data = gzip.compress(bytes(50 << 20))
    assert len(data) < 1 << 16
    with opened(io.BytesIO(data)) as stream:
        assert len(stream.read(1 << 16)) <= 1 << 16
