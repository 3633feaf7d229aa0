"""Volume sources: resolved once, held by descriptor."""

from __future__ import annotations

import os

import pytest

from kata.errors import HostError, InvalidInput, NotFound
from kata.storage.sources import pin


def test_a_source_is_what_the_path_named_when_it_was_pinned(tmp_path):
    """Renaming and replacing the path afterwards changes nothing."""
    place = tmp_path / "d"
    place.mkdir()
    (tmp_path / "link").symlink_to(place)
    source = pin(str(tmp_path / "link"))
    place.rename(tmp_path / "moved")
    place.mkdir()
    try:
        assert source.path == str(place)
        assert source.is_directory
        assert os.path.samestat(os.stat(source.fd), os.stat(tmp_path / "moved"))
    finally:
        source.close()


def test_a_missing_source_is_made_only_where_asked(tmp_path):
    """Docker's -v makes a directory; otherwise a missing source is an error."""
    path = str(tmp_path / "a" / "b")
    with pytest.raises(NotFound, match="no such file"):
        pin(path)
    source = pin(path, create=True)
    source.close()
    assert os.path.isdir(path)


def test_a_file_is_no_directory(tmp_path):
    """A file can be a source too."""
    (tmp_path / "f").write_text("x")
    source = pin(str(tmp_path / "f"), create=True)
    source.close()
    assert not source.is_directory


def test_refusals_name_the_source(tmp_path):
    """Relative paths, dangling links and files as directories are refused."""
    with pytest.raises(InvalidInput, match="not an absolute path"):
        pin("here")
    (tmp_path / "link").symlink_to(tmp_path / "nothing" / "there")
    with pytest.raises((HostError, NotFound), match="link"):
        pin(str(tmp_path / "link"), create=True)
    (tmp_path / "f").write_text("x")
    with pytest.raises(HostError, match="Not a directory"):
        pin(str(tmp_path / "f" / "x"), create=True)
