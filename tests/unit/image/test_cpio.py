"""The archive of the first file system, compared with what cpio and the format say."""

import shutil
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kata.image import cpio

NAMES = st.text("abcXYZ019._-", min_size=1, max_size=9).filter(lambda n: n.strip("."))
PATHS = st.lists(NAMES, min_size=1, max_size=3).map("/".join)


def test_header_is_that_of_the_format():
    """The first record is the documented one, field by field."""
    data = cpio.archive([cpio.regular("ab", b"xyz", 0o640)], mtime=7)
    fields = [int(data[6 + 8 * i : 14 + 8 * i], 16) for i in range(13)]
    assert data[:6] == b"070701"
    assert fields == [1, 0o100640, 0, 0, 1, 7, 3, 0, 0, 0, 0, 3, 0]
    assert data[110:122] == b"ab\0\0\0\0xyz\0" + b"07"
    assert len(data) % 512 == 0


def test_cpio_reads_it(tmp_path):
    """The cpio program, where there is one, lists what was put in, parents first."""
    if not shutil.which("cpio"):
        pytest.skip("there is no cpio program")
    entries = [
        cpio.symlink("usr/bin/sh", "busybox"),
        cpio.regular("usr/bin/busybox", b"elf", 0o755),
        cpio.character_device("dev/console", 5, 1, 0o600),
        cpio.directory("tmp", 0o1777),
    ]
    argv = ["cpio", "-itv", "--quiet", "--numeric-uid-gid"]
    done = subprocess.run(argv, input=cpio.archive(entries), stdout=subprocess.PIPE, check=True)
    lines = [line.split() for line in done.stdout.decode().splitlines()]
    assert [(line[0], line[-1]) for line in lines] == [
        ("drwxr-xr-x", "dev"),
        ("crw-------", "dev/console"),
        ("drwxrwxrwt", "tmp"),
        ("drwxr-xr-x", "usr"),
        ("drwxr-xr-x", "usr/bin"),
        ("-rwxr-xr-x", "usr/bin/busybox"),
        ("lrwxrwxrwx", "busybox"),
    ]


@given(st.dictionaries(PATHS, st.binary(max_size=20), max_size=6), st.randoms())
def test_order_of_entries_does_not_matter(files, random):
    """The same files in any order are the same archive."""
    paths = [p for p in files if not any(q.startswith(f"{p}/") for q in files)]
    entries = [cpio.regular(path, files[path]) for path in paths]
    shuffled = random.sample(entries, len(entries))
    assert cpio.archive(entries) == cpio.archive(shuffled)


@pytest.mark.parametrize("path", ["", "/etc", "a//b", "a/../b", "./a", "a/", "TRAILER!!!"])
def test_bad_paths_are_refused(path):
    """A path that is absolute, empty, or climbs is an error."""
    with pytest.raises(ValueError, match="cannot be the path"):
        cpio.archive([cpio.regular(path, b"")])


def test_a_path_twice_is_refused():
    """Two entries of one path are an error."""
    with pytest.raises(ValueError, match="twice"):
        cpio.archive([cpio.regular("a", b""), cpio.directory("a")])
