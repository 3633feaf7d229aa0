"""Copying trees by descriptors."""

from __future__ import annotations

import os

from kata.linux import copytree


def copied(source, target):
    """Copy by O_PATH descriptors."""
    fds = [os.open(path, os.O_PATH | os.O_DIRECTORY) for path in (source, target)]
    try:
        copytree.copy(*fds)
    finally:
        for fd in fds:
            os.close(fd)


def test_everything_comes_along(tmp_path):
    """Files, modes, times, links, empty directories, a fifo."""
    source, target = tmp_path / "a", tmp_path / "b"
    (source / "deep" / "deeper").mkdir(parents=True)
    target.mkdir()
    (source / "deep" / "file").write_bytes(b"x" * (3 << 20))
    (source / "deep" / "file").chmod(0o4751)
    os.utime(source / "deep" / "file", ns=(10**18, 10**18 + 5))
    (source / "link").symlink_to("/nowhere/at/all")
    os.mkfifo(source / "fifo", 0o640)
    source.chmod(0o1777)
    copied(source, target)
    assert (target / "deep" / "file").read_bytes() == b"x" * (3 << 20)
    status = (target / "deep" / "file").stat()
    assert status.st_mode & 0o7777 == 0o4751
    assert status.st_mtime_ns == 10**18 + 5
    assert os.readlink(target / "link") == "/nowhere/at/all"
    assert (target / "deep" / "deeper").is_dir()
    assert (target / "fifo").is_fifo()
    assert target.stat().st_mode & 0o7777 == 0o1777


def test_a_link_is_not_followed(tmp_path):
    """A link to a directory is copied as a link, whatever is behind it."""
    source, target, other = tmp_path / "a", tmp_path / "b", tmp_path / "other"
    for path in (source, target, other):
        path.mkdir()
    (other / "secret").write_text("s")
    (source / "link").symlink_to(other)
    copied(source, target)
    assert (target / "link").is_symlink()
    assert os.listdir(target) == ["link"]
