"""No order of hostile entries reaches out of the tree."""

from __future__ import annotations

import io
import os
import shutil
import tarfile
import tempfile

from hypothesis import given
from hypothesis import strategies as st

from kata.errors import ImageError
from kata.image import layer
from kata.image.tarstream import Limits, entries
from support.images import Archive, snapshot

NAMES = st.lists(st.sampled_from(["a", "b", "c", "..", ".", ".wh.a", ".wh..wh..opq"]), min_size=1,
                 max_size=4).map("/".join)  # fmt: skip
TARGETS = st.sampled_from([
    "a", "b/c", "..", "../../..", "/", "/a", "/outside", "../outside", "../../outside/kept",
    "outside/kept", "/proc/self/root", ".",
])  # fmt: skip
KINDS = st.sampled_from([
    tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE,
    tarfile.FIFOTYPE,
])  # fmt: skip


def outside(place):
    """What must not change."""
    return snapshot(f"{place}/outside"), sorted(os.listdir("/")), os.stat("/").st_mode


@given(st.lists(st.tuples(NAMES, KINDS, TARGETS | NAMES), max_size=12))
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
