"""Pods over CRI: sandboxes with containers that come and go."""

from __future__ import annotations


def test_exec(pod):
    """A command's output and exit code come back."""
    done = pod.exec("box", "sh", "-c", "echo out; echo err >&2; exit 3")
    assert (done.code, done.out, done.err) == (3, "out", "err")
