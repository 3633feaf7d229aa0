"""Verbs over what is kept on disk: images, guest images, templates, leftovers."""

from __future__ import annotations

import json
import os

import pytest

from kata.cli import factory, guest, image
from kata.cli.main import main
from kata.image.guest_store import Stored
from kata.image.store import Image

SECOND = 1_000_000_000
EMPTY = [
    ["gc"], ["image", "ls"], ["image", "prune"], ["guest", "ls"], ["factory", "status"],
    ["factory", "destroy"],
]  # fmt: skip


@pytest.fixture
def kata(tmp_path):
    """Runs a command line on roots that do not exist yet."""
    roots = ["--root", f"{tmp_path}/run", "--data-root", f"{tmp_path}/data"]
    return lambda *words: main([*roots, *words])


@pytest.mark.parametrize("words", EMPTY)
def test_nothing_is_no_error(kata, words, capsys, tmp_path):
    """Before anything was made there is nothing to list or remove, and none is made."""
    assert kata(*words) == 0
    assert capsys.readouterr().err == ""
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("words", [w for w in EMPTY if w != ["factory", "destroy"]])
def test_nothing_as_json(kata, words, capsys):
    """Each of them has a JSON form, of the same shape when empty."""
    assert kata(*words, "--format", "json") == 0
    value = json.loads(capsys.readouterr().out)
    assert value == [] or value["freed_bytes"] == 0


def test_what_is_missing_is_told(kata, capsys):
    """An image that is not there is named, with where to look."""
    assert kata("image", "rm", "nosuch", "other") == 1
    assert kata("guest", "rm", "abc") == 1
    assert kata("image", "import", "/nosuch/file") == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == 'kata: no such image: "nosuch"'
    assert [line for line in lines if "guest image" in line]
    assert lines[-1].startswith('kata: cannot import "/nosuch/file"')


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("docker.io/library/busybox:1.36", ("busybox", "1.36")),
        ("docker.io/team/app:latest", ("team/app", "latest")),
        ("localhost:5000/app:1", ("localhost:5000/app", "1")),
        (None, ("<none>", "<none>")),
    ],
)
def test_an_image_as_a_row(name, shown):
    """Names are shown as people write them, with Docker's columns."""
    stored = Image(id="a" * 64, name=name or "", created="2026-01-01T00:00:00Z", sizes=(2_000_000,))
    row = image.row(image.describe(stored), 1_767_225_600 * SECOND + 7200 * SECOND)
    assert row == (*shown, "a" * 12, "2 hours ago", "2MB")


@pytest.mark.parametrize("created", ["", "yesterday", "0000-99-99", "0001-01-01T00:00:00Z"])
def test_an_image_of_no_time(created):
    """A time that nobody can read is no error; reproducible images have none."""
    assert image.row(image.describe(Image(id="a" * 64, created=created)), SECOND)[3] == ""


def test_a_damaged_guest_image_as_a_row():
    """What cannot be used is listed, so that it can be removed."""
    item = guest._describe("/data/guest", Stored("abc", None, default=True, error="broken"))
    assert item["error"] == "broken"
    row = guest._row(item, whole=False)
    assert row == ("abc", "yes", "damaged", "", "", "", "/data/guest/abc")


@pytest.mark.parametrize(
    ("item", "state"),
    [
        ({"sound": True, "current": True, "flaw": ""}, "ready"),
        ({"sound": True, "current": False, "flaw": ""}, "stale"),
        ({"sound": False, "current": True, "flaw": "cut short"}, "damaged: cut short"),
        ({"sound": False, "current": False, "flaw": "half made"}, "half made"),
    ],
)
def test_templates_as_rows(item, state):
    """A template whose manifest cannot be read has a row all the same."""
    row = factory._row({"key": "k" * 16, **item}, 0)
    assert (row[0], row[-1]) == ("k" * 12, state)
    whole = {
        "machine_type": "pc", "accelerator": "tcg", "memory_mib": 512, "vcpus": 1,
        "state_bytes": 10**6, "memory_bytes": 10**8, "made_ns": SECOND,
    }  # fmt: skip
    row = factory._row({"key": "k" * 16, **item, **whole}, 61 * SECOND)
    assert row[1:6] == ("pc, tcg", "512 MiB", "1", "101MB", "1 minute ago")
