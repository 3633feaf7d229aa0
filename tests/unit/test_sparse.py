"""Files with holes: copied with them, and given more of them."""

from __future__ import annotations

import os

import pytest

from kata.linux.sparse import extents, memory_copy, punch_zeroes, zero_runs

PAGE = 4096


def sparse(path, parts, size):
    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    os.ftruncate(fd, size)
    for offset, data in parts:
        os.pwrite(fd, data, offset)
    return fd


@pytest.mark.parametrize("size", [0, 1, 64 * PAGE, 64 * PAGE + 100])
@pytest.mark.parametrize("offsets", [(), (0,), (5 * PAGE + 7, 40 * PAGE), (63 * PAGE,)])
def test_a_copy_is_equal_and_as_sparse(tmp_path, size, offsets):
    """The bytes are the same, and holes take no memory."""
    parts = [(o, os.urandom(3 * PAGE // 4)) for o in offsets if o + PAGE <= size]
    fd = sparse(tmp_path / "f", parts, size)
    copy = memory_copy(fd, "copy")
    try:
        assert os.pread(copy, size + 1, 0) == os.pread(fd, size + 1, 0)
        assert os.fstat(copy).st_blocks * 512 <= 2 * PAGE * len(parts)
    finally:
        os.close(fd)
        os.close(copy)


def test_extents_are_what_is_not_a_hole(tmp_path):
    """Offset and length of each part with data."""
    fd = sparse(tmp_path / "f", [(0, bytes(PAGE)), (8 * PAGE, b"x" * PAGE)], 16 * PAGE)
    try:
        assert extents(fd) == [(0, PAGE), (8 * PAGE, PAGE)]
    finally:
        os.close(fd)


def test_pages_of_zeroes_become_holes_and_nothing_else_changes(tmp_path):
    """Whole pages of zeroes are given back; the bytes read stay the same."""
    data = b"a" * PAGE + bytes(3 * PAGE) + b"b" + bytes(2 * PAGE - 1) + b"c" * PAGE
    assert zero_runs(data) == [(PAGE, 3 * PAGE), (5 * PAGE, PAGE)]
    fd = sparse(tmp_path / "f", [(0, data)], len(data))
    try:
        assert punch_zeroes(fd) == 4 * PAGE
        assert os.pread(fd, len(data), 0) == data
        assert extents(fd) == [(0, PAGE), (4 * PAGE, PAGE), (6 * PAGE, PAGE)]
    finally:
        os.close(fd)


def test_a_source_that_is_none_is_an_error_that_leaves_nothing():
    """Without a source there is no copy, and no descriptor is left behind."""
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError, match="Bad file descriptor"):
        memory_copy(1 << 20, "copy")
    assert len(os.listdir("/proc/self/fd")) == before
