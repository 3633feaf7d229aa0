"""The page about pods: it is the table that the tests of containerd ask."""

from __future__ import annotations

import re

import pytest

from containerd.differences import ROWS, page
from support import source

TESTS = [path for path in source.files("tests/containerd") if "/test_" in path]


def test_page_is_current():
    """``docs/reference/cri.md`` is generated (``make docs`` mends it)."""
    assert source.text("docs/reference/cri.md") == page()


@pytest.mark.parametrize("name", ROWS)
def test_rows_are_proven(name):
    """Each row is asked for by a test, which proves what holds instead."""
    asked = re.compile(rf'differs\([\w.]*runtime, "{name}"\)')
    assert any(asked.search(source.text(path)) for path in TESTS)
