"""ctr: containers run, are added to, paused, killed, and leave nothing."""

from __future__ import annotations


def test_exit_codes(ctr):
    """The code of the process is the command's."""
    assert [ctr.run("sh", "-c", f"exit {code}").code for code in (0, 7)] == [0, 7]
