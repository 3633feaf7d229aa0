"""Reading a configuration of the host: all of it, within bounds, and nothing else."""

import os
import stat

import pytest

from kata.storage import tree
from kata.storage.sources import version


@pytest.fixture
def top(tmp_path):
    """A directory and its descriptor."""
    path = tmp_path / "top"
    path.mkdir(mode=0o755)
    fd = os.open(path, os.O_PATH)
    yield path, fd
    os.close(fd)


def test_all_is_read(top):
    """Parents first; contents, links, owners, modes and times."""
    path, fd = top
    (path / "..1").mkdir(mode=0o700)
    (path / "..1" / "key").write_bytes(b"value")
    os.utime(path / "..1" / "key", ns=(1, 2))
    os.chmod(path / "..1" / "key", 0o400)
    os.symlink("..1", path / "..data")
    entered = []
    found = tree.read(fd, 8, lambda at: entered.append(os.readlink(f"/proc/self/fd/{at}")))
    assert [(n.path, stat.S_IFMT(n.mode), n.content, n.mtime_ns) for n in found] == [
        ("", stat.S_IFDIR, b"", 0), ("..1", stat.S_IFDIR, b"", 0),
        ("..1/key", stat.S_IFREG, b"value", 2), ("..data", stat.S_IFLNK, b"..1", 0),
    ]  # fmt: skip
    assert [n.mode & 0o7777 for n in found] == [0o755, 0o700, 0o400, 0o777]
    assert {(n.uid, n.gid) for n in found} == {(os.getuid(), os.stat(path).st_gid)}
    assert entered == [str(path), str(path / "..1")]
    assert version(fd) == "..1"
    assert tree.size(found) == 8  # the room there was
    with pytest.raises(tree.TooMuch):
        tree.read(fd, 7)


def test_without_the_link_it_has_no_version(top):
    """A directory without the link, or with something else of its name, is no configuration."""
    path, fd = top
    assert version(fd) == ""
    (path / "..data").mkdir()
    assert version(fd) == ""


def large(path):
    (path / "file").write_bytes(bytes(1001))


def many(path):
    for number in range(256):
        (path / str(number)).touch()


def deep(path):
    os.makedirs(path / "/".join("abcdefghi"))


def unknown_name(path):
    os.close(os.open(os.fsencode(path) + b"/\xff", os.O_CREAT))


def fifo(path):
    os.mkfifo(path / "fifo")


def long_link(path):
    os.symlink("x" * 1001, path / "link")


@pytest.mark.parametrize("make", [large, many, deep, unknown_name, fifo, long_link])
def test_what_is_no_configuration_is_not_read(top, make):
    """Too large, too many, too deep, or not of files: each without waiting for anything."""
    path, fd = top
    make(path)
    with pytest.raises(tree.TooMuch):
        tree.read(fd, 1000)


def test_what_is_behind_a_link_is_not_read(top, tmp_path):
    """A link stays one, wherever it leads."""
    path, fd = top
    (tmp_path / "secret").write_bytes(b"secret")
    os.symlink(tmp_path / "secret", path / "link")
    assert [n.content for n in tree.read(fd, 1000)] == [b"", os.fsencode(tmp_path / "secret")]
