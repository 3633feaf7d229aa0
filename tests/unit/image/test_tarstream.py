"""What an archive says of its entries is bounded before anybody acts on it."""

from __future__ import annotations

import io
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kata.errors import ImageError
from kata.image.tarstream import Limits, chunks, components, entries
from support.images import Archive

NO_LIMITS = Limits()


def read(data: bytes, limits=NO_LIMITS):
    """The entries of an archive, each with its content."""
    return [(e, b"".join(chunks(e))) for e in entries(io.BytesIO(data), limits)]


@given(st.text(alphabet=st.sampled_from("ab./\0 \u20ac\n"), max_size=30))
def test_no_path_has_dots(name):
    """A path is refused, or has only plain components: none empty, ".", ".." or with a slash."""
    try:
        parts = components(name)
    except ImageError:
        assert ".." in name or "\0" in name
        return
    assert not set(parts) & {"", ".", ".."}
    assert not any("/" in part or "\0" in part for part in parts)
    assert "/".join(parts) == "/".join(p for p in name.split("/") if p not in ("", "."))


def test_absolute_names_become_relative():
    """As Docker has it, a leading slash means the root of the image."""
    assert components("/etc//passwd") == components("./etc/./passwd") == ("etc", "passwd")
    assert components("./") == components("/") == ()


@given(st.binary(max_size=3000))
def test_noise_is_refused(data):
    """No bytes make the reader fail in another way than by its own error."""
    try:
        read(data)
    except ImageError:
        pass


_WHOLE = Archive().file("a", b"x" * 600, xattrs={"user.k": b"v"}).symlink("l", "a" * 300)
_WHOLE = _WHOLE.hardlink("h", "a").directory("d", pax_headers={"mtime": "1.5"}).bytes()


@given(st.integers(0, 4 * 512 * 4), st.binary(min_size=1, max_size=40))
def test_damage_is_refused_or_harmless(at, noise):
    """An archive with bytes changed anywhere gives entries within bounds, or its own error."""
    data = _WHOLE[:at] + noise + _WHOLE[at + len(noise) :]
    try:
        for entry, content in read(data):
            assert ".." not in entry.path
            assert 0 <= entry.mode <= 0o7777
            assert 0 <= entry.uid < 1 << 32
            assert len(content) == entry.size
    except ImageError:
        pass


def test_a_bad_header_is_not_the_end():
    """A header with a wrong checksum in the middle is an error, though tarfile stops there."""
    good = Archive().file("a", b"1").file("b", b"2").bytes()
    bad = good[:1024] + bytes([good[1024] ^ 1]) + good[1025:]
    assert len(tarfile.open(fileobj=io.BytesIO(bad)).getmembers()) == 1
    with pytest.raises(ImageError, match="checksum"):
        read(bad)


def test_huge_extended_headers():
    """A pax header that claims gigabytes is refused before it is read."""
    info = tarfile.TarInfo("pax")
    info.type, info.size = tarfile.XHDTYPE, 8 << 30
    with pytest.raises(ImageError, match="1 MiB"):
        read(info.tobuf(tarfile.GNU_FORMAT))


def test_exact_times():
    """Times of pax headers are kept to the nanosecond; those before 1970 and after 2514 are cut."""
    archive = Archive()
    for text in ("1700000000.123456789", "-5.5", "99999999999999", "7", "nan"):
        archive.file("x", pax_headers={"mtime": text})
    found = [entry.mtime_ns for entry, _ in read(archive.bytes())]
    assert found == [1700000000123456789, 0, (1 << 34) * 10**9, 7 * 10**9, found[4]]


def test_limits():
    """Entries and bytes are counted."""
    data = Archive().file("a", bytes(2000)).file("b").bytes()
    assert len(read(data, Limits(2, 2000))) == 2
    for limits in (Limits(1, 2000), Limits(2, 1999)):
        with pytest.raises(ImageError, match="too large"):
            read(data, limits)
