"""Control groups by systemd: which unit, where, and what the bus is asked."""

from __future__ import annotations

import pytest

from kata.errors import HostError, InvalidInput
from kata.resources import systemd
from kata.resources.systemd import Unit, arguments, slice_path, unit


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("", Unit("system.slice", "kata-c1.scope")),
        ("machine.slice:libpod:abc", Unit("machine.slice", "libpod-abc.scope")),
        (":docker:abc", Unit("system.slice", "docker-abc.scope")),
        ("kubepods-besteffort.slice:crio:abc", Unit("kubepods-besteffort.slice", "crio-abc.scope")),
        ("user.slice::abc", Unit("user.slice", "abc.scope")),
    ],
)
def test_the_unit(path, found):
    """As runc reads slice:prefix:name."""
    assert unit(path, "c1") == found


@pytest.mark.parametrize("path", ["/docker/abc", "a:b", "a.slice:b:", "a:b:c", "a.slice:b/c:d"])
def test_paths_that_are_none(path):
    """A path of the other driver, or half of one, is refused."""
    with pytest.raises(InvalidInput):
        unit(path, "c1")


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("system.slice", "system.slice"),
        ("a-b-c.slice", "a.slice/a-b.slice/a-b-c.slice"),
        ("-.slice", ""),
    ],
)
def test_where_a_slice_is(name, path):
    """systemd nests them by the dashes of their names."""
    assert slice_path(name) == path


def test_a_slice_with_an_empty_part_is_refused():
    """systemd would refuse it, later and less clearly."""
    with pytest.raises(InvalidInput):
        slice_path("a--b.slice")


def test_what_the_bus_is_asked():
    """One process, accounting, and no part in the order of the shutdown."""
    words = arguments(Unit("machine.slice", "libpod-abc.scope"), 7, "a b")
    assert words[:7] == systemd._CALL
    assert words[7:10] == ("libpod-abc.scope", "replace", "8")
    assert words[-1] == "0"
    text = " ".join(words)
    for part in ("Slice s machine.slice", "PIDs au 1 7", "Delegate b true", "Description s a b"):
        assert part in text


def test_a_host_without_systemd_says_so(monkeypatch):
    """In runc's words."""
    monkeypatch.setattr(systemd, "_RUNNING", "/nowhere")
    with pytest.raises(HostError, match="systemd not running on this host"):
        systemd.require()


def test_a_refusal_of_the_bus_is_told(monkeypatch, tmp_path):
    """What busctl says is the reason."""
    program = tmp_path / "busctl"
    program.write_text("#!/bin/sh\necho Unit exists >&2\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setattr(systemd, "_PATHS", (str(program),))
    monkeypatch.setattr(systemd, "_RUNNING", str(tmp_path))
    with pytest.raises(HostError, match="Unit exists"):
        systemd.start(Unit("system.slice", "x.scope"), "x")


def test_the_process_is_waited_for(monkeypatch, tmp_path):
    """The bus answers before the process has moved; the arguments are as planned."""
    program = tmp_path / "busctl"
    program.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" >{tmp_path}/said\n')
    program.chmod(0o755)
    answers = iter((False, False, True))
    monkeypatch.setattr(systemd, "_PATHS", (str(program),))
    monkeypatch.setattr(systemd, "_RUNNING", str(tmp_path))
    monkeypatch.setattr(systemd, "_inside", lambda _scope: next(answers))
    systemd.start(Unit("system.slice", "x.scope"), "what it is")
    assert next(answers, "used up") == "used up"
    assert "what it is" in (tmp_path / "said").read_text().splitlines()
