"""No order of hostile entries reaches out of the tree."""

from __future__ import annotations

import io
import os
import shutil
import tarfile
import tempfile

from hypothesis import given, settings
from hypothesis import strategies as st

from kata.errors import ImageError
from kata.image import layer
from kata.image.tarstream import Limits, entries
from support.images import Archive, snapshot

NAMES = st.sampled_from(["a", "b", "a/x", "a/x/y", "b/x", "b/kept", "a/.wh.b", "a/.wh..wh..opq"])
TARGETS = st.sampled_from(["../outside", "a", "b/..", "../../outside", "a/../../outside", "/", "."])
LINKS = st.tuples(NAMES, st.sampled_from([tarfile.SYMTYPE, tarfile.LNKTYPE]), TARGETS | NAMES)
OTHERS = st.tuples(
    NAMES,
    st.sampled_from([tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE]),
    st.just(""),
)


def outside(place):
    """What must not change."""
    return snapshot(f"{place}/outside"), sorted(os.listdir("/")), os.stat("/").st_mode


@settings(max_examples=400)
@given(st.lists(LINKS | OTHERS, min_size=2, max_size=8))
def test_nothing_outside_changes(listed):
    """Whatever links and names an archive has, what lies beside the root stays as it was."""
    place = tempfile.mkdtemp(prefix="kt-", dir="/tmp")
    try:
        os.makedirs(f"{place}/outside")
        with open(f"{place}/outside/kept", "w") as file:
            file.write("kept")
        os.mkdir(f"{place}/root")
        archive = Archive()
        for name, kind, target in listed:
            fields = {"linkname": target} if kind in (tarfile.SYMTYPE, tarfile.LNKTYPE) else {}
            archive.add(name, kind, mode=0o777, uid=5, mtime=7, **fields)
        before = outside(place)
        try:
            layer.apply(entries(io.BytesIO(archive.bytes()), Limits()), f"{place}/root")
        except ImageError:
            pass
        assert outside(place) == before
        assert sorted(os.listdir(place)) == ["outside", "root"]
    finally:
        shutil.rmtree(place)
