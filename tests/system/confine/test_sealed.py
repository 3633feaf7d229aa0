"""Descriptors for reading, of which nobody can make more."""

import os

import pytest

from kata.linux.sealed import open_read_only


def test_a_sealed_file_cannot_be_opened_again_for_writing(directory):
    """Root itself, by /proc/self/fd: refused; the name on the host is as writable as ever."""
    path = f"{directory}/file"
    with open(path, "w", encoding="ascii") as file:
        file.write("content")
    fd = open_read_only(path)
    try:
        assert os.read(fd, 100) == b"content"
        with pytest.raises(OSError, match="Read-only file system"):
            os.open(f"/proc/self/fd/{fd}", os.O_RDWR)
        with pytest.raises(OSError, match="Read-only file system"):
            os.truncate(f"/proc/self/fd/{fd}", 0)
        with pytest.raises(OSError, match="Read-only file system"):
            os.chmod(f"/proc/self/fd/{fd}", 0o777)
    finally:
        os.close(fd)
    os.close(os.open(path, os.O_RDWR))
    with open("/proc/self/mountinfo", encoding="utf-8") as mounts:
        assert directory not in mounts.read()


def test_a_sealed_device_cannot_be_opened_again_at_all():
    """A device is open already; by /proc/self/fd it is one in a mount without devices."""
    fd = open_read_only("/dev/zero")
    try:
        assert os.read(fd, 2) == b"\0\0"
        with pytest.raises(PermissionError):
            os.open(f"/proc/self/fd/{fd}", os.O_RDONLY)
    finally:
        os.close(fd)


def test_what_is_not_there_is_said():
    """As by open(2)."""
    with pytest.raises(FileNotFoundError):
        open_read_only("/nonexistent/file")
    with pytest.raises(FileNotFoundError):
        open_read_only("/nonexistent")
