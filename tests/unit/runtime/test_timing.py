"""Phases of a start."""

from kata.runtime.timing import Marks, phases


def test_phases_sum_to_the_whole_in_any_order():
    """Each phase ends at its mark; marks of several processes are merged by time."""
    rows = phases(0, [("ready", 3_000_000), ("main", 1_000_000), ("odd", 4_500_000)])
    assert rows == [("interpreter", 1.0), ("monitor: restore", 2.0), ("odd", 1.5)]


def test_a_moment_is_noted_once():
    """Only the first output counts."""
    marks = Marks()
    marks.once("output")
    marks.once("output")
    assert len(marks.list) == 1
