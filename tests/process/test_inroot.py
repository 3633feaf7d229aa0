"""Paths inside a directory that may hold hostile symbolic links."""

from __future__ import annotations

import os

import pytest

from kata.linux import inroot


@pytest.fixture
def root(directory):
    """A root with links that lead out of it, and a descriptor of it."""
    path = f"{directory}/root"
    os.makedirs(f"{path}/a")
    os.symlink("/outside/x", f"{path}/absolute")
    os.symlink("../../../outside", f"{path}/a/relative")
    os.symlink("loop", f"{path}/loop")
    os.symlink("/a", f"{path}/inside")
    fd = os.open(path, os.O_PATH | os.O_DIRECTORY)
    yield path, fd
    os.close(fd)


@pytest.mark.parametrize(
    ("asked", "made"),
    [
        ("/new/deep/er", "new/deep/er"),
        ("absolute/y", "outside/x/y"),
        ("/a/relative/z", "outside/z"),
        ("/inside/b", "a/b"),
        ("/../../../up", "up"),
    ],
)
def test_directories_are_made_inside(root, asked, made):
    """Wherever links point, the directory is made below the root."""
    path, fd = root
    os.close(inroot.make_directory(fd, asked))
    assert os.path.isdir(f"{path}/{made}")
    assert not os.path.exists(f"{os.path.dirname(path)}/outside")


def test_files_are_made_inside(root):
    """A file behind a dangling link is made where the link leads inside the root."""
    path, fd = root
    os.close(inroot.make_file(fd, "/absolute", 0o600))
    assert os.stat(f"{path}/outside/x").st_mode & 0o777 == 0o600
    os.close(inroot.make_file(fd, "/absolute"))


def test_links_that_go_round(root):
    """A link to itself is an error, not an endless loop."""
    _, fd = root
    with pytest.raises(OSError, match="symbolic links"):
        inroot.make_directory(fd, "/loop/x")


def test_a_file_is_no_directory(root):
    """A path through a file is an error."""
    path, fd = root
    with open(f"{path}/file", "w", encoding="ascii"):
        pass
    with pytest.raises(NotADirectoryError):
        inroot.make_directory(fd, "/file/x")
