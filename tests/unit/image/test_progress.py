"""What people see of a fetch."""

from __future__ import annotations

import io

import pytest

from kata.image.progress import Bar, Lines, Progress, bar, size_text


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0 B"), (999, "999 B"), (12_345_678, "12.3 MB"), (5 * 10**9, "5.0 GB")]
)
def test_sizes(size, text):
    """Sizes are in powers of 1000 with one digit."""
    assert size_text(size) == text


@pytest.mark.parametrize("columns", [20, 40, 80, 200])
@pytest.mark.parametrize("total", [0, 1000])
def test_a_bar_fits_its_line(columns, total):
    """However narrow the terminal, the line does not wrap."""
    assert len(bar("unpacking layer 3 of 12 " * 3, 5000, total, columns)) < columns
    assert "50 %" in bar("x", 500, 1000, 80)


def test_lines_and_bars():
    """Elsewhere than on a terminal a task is one line; a bar leaves nothing behind."""
    stream = io.StringIO()
    with Lines(stream).task("unpacking", 2000) as task:
        task.at(1000)
    assert stream.getvalue() == "kata: unpacking (2.0 kB)\n"
    stream = io.StringIO()
    with Bar(stream).task("unpacking", 2000) as task:
        task.at(1000)
    assert "unpacking" in stream.getvalue()
    assert stream.getvalue().endswith("\r\x1b[K")
    with Progress().task("silent", 1) as task:
        task.at(1)
