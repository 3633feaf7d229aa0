"""Hooks of the host: programs that are told the state, one after the other."""

from __future__ import annotations

import os

import pytest

from kata.errors import HostError
from kata.runtime.hooks import run_all


def script(directory, name, text):
    """A program in a directory."""
    path = directory / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def test_they_run_in_order_and_read_the_state(tmp_path):
    """Each to its end before the next; arguments and environment are theirs alone."""
    out = tmp_path / "out"
    first = script(tmp_path, "first", f"sleep 0.1; echo first $* >>{out}; cat >>{out}")
    second = script(tmp_path, "second", f"echo second $0 >>{out}; env | grep -v _= >>{out}")
    hooks = [
        {"path": first, "args": ["hook", "a b"]},
        {"path": second, "env": ["ONLY=this"]},
    ]
    run_all("prestart", hooks, b'{"id":"x"}\n')
    lines = out.read_text().splitlines()
    assert lines[:2] == ["first a b", '{"id":"x"}']
    assert lines[2].startswith("second ")
    assert {line for line in lines[3:] if not line.startswith("PWD=")} == {"ONLY=this"}


def test_the_first_failure_ends_it(tmp_path):
    """It is named with its output; the next one does not run."""
    bad = script(tmp_path, "bad", "echo no such luck >&2; exit 3")
    after = script(tmp_path, "after", f"touch {tmp_path}/ran")
    with pytest.raises(HostError, match="error running createRuntime hook #0") as caught:
        run_all("createRuntime", [{"path": bad}, {"path": after}], b"{}")
    assert "exit status 3" in caught.value.why
    assert "no such luck" in caught.value.why
    assert not (tmp_path / "ran").exists()


def test_one_that_takes_too_long_is_killed(tmp_path):
    """With whatever it started."""
    slow = script(tmp_path, "slow", f"echo $$ >{tmp_path}/pid; sleep 1000 & wait")
    with pytest.raises(HostError, match="not done after 1 s"):
        run_all("poststart", [{"path": slow, "timeout": 1}], b"{}")
    group = int((tmp_path / "pid").read_text())
    try:
        while os.waitpid(-group, 0)[1] != 9:  # the orphan came to us, and was killed
            pass
    except ChildProcessError:
        pass
    with pytest.raises(ProcessLookupError):
        os.killpg(group, 0)


def test_one_that_is_not_there(tmp_path):
    """The reason is the kernel's."""
    with pytest.raises(HostError, match="No such file"):
        run_all("poststop", [{"path": str(tmp_path / "none")}], b"{}")


def test_one_that_does_not_read_is_no_error(tmp_path):
    """The state is offered, not forced on it."""
    run_all("prestart", [{"path": script(tmp_path, "deaf", "exec <&-; exit 0")}], b"x" * 4000)


def test_a_relative_path_begins_at_the_bundle(tmp_path):
    """Wherever the command stands, and with the name that was given."""
    script(tmp_path, "hook", f"echo $0 >{tmp_path}/out")
    run_all("poststop", [{"path": "./hook"}], f'{{"bundle": "{tmp_path}"}}'.encode())
    assert (tmp_path / "out").read_text().strip().endswith("/hook")
    with pytest.raises(HostError, match="No such file"):
        run_all("poststop", [{"path": "none"}], f'{{"bundle": "{tmp_path}"}}'.encode())
