"""Sparse copies into memory."""

from __future__ import annotations

import os

import pytest
from kata.linux.sparse import copy_sparse, extents

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
    copy = copy_sparse(fd, size)
    try:
        assert os.pread(copy, size + 1, 0) == os.pread(fd, size + 1, 0)
        assert os.fstat(copy).st_blocks * 512 <= 2 * PAGE * len(parts)
    finally:
        os.close(fd)
        os.close(copy)


def test_extents_stop_at_the_size_asked_for(tmp_path):
    """Data beyond the size is not looked at."""
    fd = sparse(tmp_path / "f", [(0, bytes(PAGE)), (8 * PAGE, b"x" * PAGE)], 16 * PAGE)
    try:
        assert list(extents(fd, 8 * PAGE + 10)) == [(0, PAGE), (8 * PAGE, 8 * PAGE + 10)]
        assert list(extents(fd, 8 * PAGE)) == [(0, PAGE)]
    finally:
        os.close(fd)


def test_a_source_without_data_is_an_error_not_a_crash():
    """A pipe cannot be copied; no descriptor is left behind."""
    reader, writer = os.pipe()
    before = len(os.listdir("/proc/self/fd"))
    try:
        with pytest.raises(OSError, match="Illegal seek"):
            copy_sparse(reader, PAGE)
        assert len(os.listdir("/proc/self/fd")) == before
    finally:
        os.close(reader)
        os.close(writer)
