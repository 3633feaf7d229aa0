"""``kata ps`` reads like ``docker ps``."""

from __future__ import annotations

import json
import os

import pytest

from kata.cli import ps
from kata.cli.main import main
from kata.cli.parse import UsageError
from kata.runtime.store import PAUSED, RUNNING, STOPPED, ContainerState, Store

SECOND = 1_000_000_000
NOW = 1_800_000_000 * SECOND


def state(**more):
    """A container with an id of a's."""
    return ContainerState(**({"id": "a" * 64, "name": "web", "image": "debian:12"} | more))


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"status": RUNNING, "started_ns": NOW - 5 * SECOND}, "Up 5 seconds"),
        ({"status": PAUSED, "started_ns": NOW - 300 * SECOND}, "Up 5 minutes (Paused)"),
        (
            {"status": STOPPED, "exit_code": 3, "finished_ns": NOW - 7200 * SECOND},
            "Exited (3) 2 hours ago",
        ),
        ({"status": STOPPED, "exit_code": 255}, "Exited (255)"),
        ({"status": "created"}, "Created"),
    ],
)
def test_status_in_words(fields, text):
    """The status column is Docker's."""
    assert ps.status_text(ps.describe(state(**fields)), NOW) == text


def test_a_row(capsys):
    """Ids and commands are shortened unless asked otherwise."""
    item = ps.describe(state(command=("sh", "-c", "x" * 50), created_ns=NOW - 90 * SECOND))
    row = ps.row(item, NOW)
    assert row[0] == "a" * 12
    assert row[2] == '"sh -c ' + "x" * 12 + "…"
    assert row[3] == "1 minute ago"
    assert ps.row(item, NOW, whole=True)[0] == "a" * 64


@pytest.mark.parametrize(
    ("words", "matches"),
    [
        (["name=we"], True),
        (["name=db"], False),
        (["name=db", "name=web"], True),
        (["id=aaa"], True),
        (["status=exited"], True),
        (["status=running"], False),
        (["exited=3"], True),
        (["exited=0"], False),
        (["label=a"], True),
        (["label=a=1"], True),
        (["label=a=2"], False),
        (["label=a", "label=b"], False),
        (["name=web", "status=running"], False),
    ],
)
def test_filters(words, matches):
    """Values of one key are alternatives, keys and labels are conditions."""
    container = state(status=STOPPED, exit_code=3, labels=(("a", "1"),))
    assert ps.matches(container, ps.parse_filters(words)) is matches


@pytest.mark.parametrize("word", ["name", "colour=red", "=x"])
def test_bad_filters(word):
    """A filter that is none is refused."""
    with pytest.raises(UsageError):
        ps.parse_filters([word])


def test_the_verb(tmp_path, capsys):
    """Those that have ended are listed with -a only; JSON has stable keys and RFC 3339 times."""
    store = Store(str(tmp_path))
    ended = state(status=STOPPED, created_ns=SECOND, finished_ns=2 * SECOND + 5)
    os.close(store.create(ended))
    assert main(["--root", str(tmp_path), "ps", "-q"]) == 0
    assert capsys.readouterr().out == ""
    assert main(["--root", str(tmp_path), "ps", "-aq"]) == 0
    assert capsys.readouterr().out == "a" * 12 + "\n"
    assert main(["--root", str(tmp_path), "ps", "-a", "--format", "json"]) == 0
    (item,) = json.loads(capsys.readouterr().out)
    assert item["created"] == "1970-01-01T00:00:01.000000000Z"
    assert item["finished"] == "1970-01-01T00:00:02.000000005Z"
    assert item["started"] is None
    assert (item["status"], item["exit_code"], item["pid"]) == ("stopped", 0, None)
    assert main(["--root", str(tmp_path), "ps", "-a"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["CONTAINER", "ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "NAMES"]
    assert lines[1].endswith("web")


def test_verbs_over_containers_that_ended(tmp_path, capsys):
    """wait, stop, inspect and rm of what has ended need no supervisor."""
    store = Store(str(tmp_path))
    ended = state(status=STOPPED, exit_code=7, created_ns=1, finished_ns=2)
    os.close(store.create(ended))
    root = ["--root", str(tmp_path)]
    assert main([*root, "wait", "web"]) == 0
    assert main([*root, "stop", "web"]) == 0
    assert capsys.readouterr().out == "7\nweb\n"
    assert main([*root, "inspect", "web"]) == 0
    (item,) = json.loads(capsys.readouterr().out)
    assert (item["id"], item["exit_code"], item["sandbox"]) == ("a" * 64, 7, None)
    assert main([*root, "inspect", "--format", "table", "web"]) == 0
    assert "exit_code     7\n" in capsys.readouterr().out
    assert main([*root, "kill", "web"]) == 1
    assert "is not running" in capsys.readouterr().err
    assert main([*root, "rm", "web", "nosuch"]) == 1
    captured = capsys.readouterr()
    assert (captured.out, captured.err.splitlines()[0]) == (
        "web\n",
        'kata: no such container: "nosuch"',
    )
    assert main([*root, "rm", "-f", "nosuch"]) == 0
    assert store.list() == []


def test_a_state_directory_that_may_not_be_read(tmp_path, capsys, monkeypatch):
    """Who may not look is told so, not shown an empty list."""
    monkeypatch.setattr(os, "access", lambda *_: False)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert main(["--root", str(tmp_path), "ps"]) == 1
    assert "permission denied" in capsys.readouterr().err


def test_a_state_directory_that_root_cannot_write(tmp_path, capsys, monkeypatch):
    """Root is not told to become root."""
    monkeypatch.setattr(os, "access", lambda *_: False)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert main(["--root", str(tmp_path), "ps"]) == 1
    told = capsys.readouterr().err
    assert "cannot be written" in told
    assert "sudo" not in told
