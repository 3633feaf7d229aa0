"""Writing a file into a root file system that may hold hostile links."""

import os

import pytest

from kata.linux.inroot import write_file


@pytest.fixture
def root(tmp_path):
    """A directory as root: its path and a descriptor of it."""
    (tmp_path / "root").mkdir()
    fd = os.open(tmp_path / "root", os.O_PATH | os.O_DIRECTORY)
    yield tmp_path / "root", fd
    os.close(fd)


def test_a_new_file_with_its_directories(root):
    """Missing directories are made, and the mode is the one asked for."""
    path, fd = root
    write_file(fd, "/etc/sub/hosts", b"a", 0o640)
    assert (path / "etc/sub/hosts").read_bytes() == b"a"
    assert (path / "etc/sub/hosts").stat().st_mode & 0o7777 == 0o640


def test_an_existing_file_is_replaced(root):
    """Nothing of a longer old content stays."""
    path, fd = root
    (path / "file").write_text("something long")
    write_file(fd, "/file", b"b", 0o644)
    assert (path / "file").read_bytes() == b"b"


def test_links_lead_nowhere_outside(root):
    """An absolute link and one with dots are resolved inside the root."""
    path, fd = root
    outside = path.parent / "outside"
    outside.write_text("untouched")
    (path / "one").symlink_to(outside)
    (path / "two").symlink_to("../../../outside")
    write_file(fd, "/one", b"x", 0o644)
    write_file(fd, "/two", b"y", 0o644)
    assert outside.read_text() == "untouched"
    assert (path / "outside").read_bytes() == b"y"


def test_a_fifo_or_directory_is_left_alone(root):
    """What is no regular file is refused, without waiting for anybody."""
    path, fd = root
    os.mkfifo(path / "fifo")
    (path / "directory").mkdir()
    for name in ("/fifo", "/directory"):
        with pytest.raises(OSError, match="regular file"):
            write_file(fd, name, b"x", 0o644)
