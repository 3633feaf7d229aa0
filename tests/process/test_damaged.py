"""A state root with what is not ours, or of another version: the others go on, it is named."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from kata.cli.main import main
from kata.runtime.store import STOPPED, ContainerState, Store
from kata.wire.record import fields

GOOD = "0" * 64
BAD = {
    "1": "{", "2": "[]", "3": "null", "4": {"status": 5}, "5": {"created_ns": "x"},
    "6": {"labels": [1]}, "7": {"labels": {"a": "b"}}, "8": {"command": 7}, "9": {"command": [1]},
    "a": {"id": GOOD}, "b": "[" * 100_000, "c": {"annotations": [["a", 1]]},
}  # fmt: skip


def put(root, digit, content):
    """A container's directory with a state."""
    container_id = digit * 64
    state = ContainerState(
        id=container_id, name=f"n{digit}", status=STOPPED, started_ns=1, finished_ns=1
    )
    os.makedirs(f"{root}/{container_id}")
    os.symlink(container_id, f"{root}/names/n{digit}")
    text = content if isinstance(content, str) else json.dumps({**fields(state), **content})
    with open(f"{root}/{container_id}/state.json", "w", encoding="utf-8") as file:
        file.write(text)


@pytest.fixture
def root(tmp_path):
    """One good container, one that is younger than this program, many bad ones, garbage."""
    os.makedirs(tmp_path / "names")
    os.makedirs(tmp_path / "uids" / "directory")
    for name in ("garbage", "names/file", "f" * 64):
        (tmp_path / name).touch()
    (tmp_path / "other").mkdir()
    put(tmp_path, "0", {"future": {"x": 1}, "command": ["good"]})
    for digit, content in BAD.items():
        put(tmp_path, digit, content)
    return str(tmp_path)


def named(text):
    """The ids that lines of an error name; each line does."""
    return sorted(line.split('"')[1] for line in text.splitlines())


ALL_BAD = sorted(digit * 12 for digit in (*BAD, "f"))


@pytest.mark.parametrize(("words", "out"), [
    (("ps", "-aq"), GOOD[:12]), (("gc",), "nothing to remove"),
])  # fmt: skip
def test_the_others_are_listed(root, capsys, words, out):
    """A line for each that cannot be read."""
    assert main(["--root", root, "--data-root", f"{root}/data", *words]) == 0
    said = capsys.readouterr()
    assert said.out.strip() == out
    assert named(said.err) == ALL_BAD


@pytest.mark.parametrize("digit", BAD)
@pytest.mark.parametrize("verb", ["inspect", "rm", "stop", "kill", "wait"])
def test_verbs_name_it_and_go_on(root, capsys, verb, digit):
    """One error with a hint; what else was named is done."""
    code = main(["--root", root, verb, f"n{digit}", "n0"])
    said = capsys.readouterr()
    assert code
    assert "internal" not in said.err
    assert said.err.startswith(f'kata: the state of container "{digit * 12}" cannot be read: ')
    assert f"kata rm -f {digit * 12} removes it" in said.err
    if verb in ("inspect", "rm", "wait"):
        assert said.out


@pytest.mark.parametrize("digit", BAD)
def test_it_can_be_removed(root, capsys, digit):
    """By its name or its id, and the name is free again."""
    assert main(["--root", root, "rm", "-f", f"n{digit}", digit * 12]) == 0
    assert capsys.readouterr().err == ""
    assert not os.path.exists(f"{root}/{digit * 64}")
    os.close(Store(root).create(ContainerState(id="d" * 64, name=f"n{digit}")))


def test_a_file_in_the_place_of_a_container(root):
    """It has no name."""
    assert main(["--root", root, "rm", "-f", "f" * 12]) == 0
    assert not os.path.lexists(f"{root}/{'f' * 64}")


def test_one_that_runs_is_ended(root):
    """Whoever holds its lock, a supervisor of another version perhaps, is killed."""
    directory = f"{root}/{'4' * 64}"
    hold = "import fcntl, sys, time; f = open(sys.argv[1], 'w'); fcntl.flock(f, fcntl.LOCK_EX);"
    hold += "print(flush=True); time.sleep(100)"
    words = [sys.executable, "-c", hold, f"{directory}/lock"]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as holder:
        assert holder.stdout.readline()
        assert main(["--root", root, "rm", "n4"])
        assert holder.poll() is None
        assert main(["--root", root, "rm", "-f", "n4"]) == 0
        assert holder.wait(10) == -9
    assert not os.path.exists(directory)
