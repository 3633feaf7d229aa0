"""``kata logs`` gives back what was written, byte for byte and stream by stream."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kata.cli import logs
from kata.cli.parse import Options
from kata.runtime.store import STOPPED, ContainerState, Store, new_id
from kata.runtime.streamlog import StreamLog, entries


@pytest.fixture
def container(tmp_path):
    """A stopped container with a directory."""
    store = Store(str(tmp_path))
    state = ContainerState(id=new_id(), name="web", status=STOPPED, created_ns=1)
    os.close(store.create(state))
    return store, state


def asked(store, **more):
    """Options of ``kata logs``."""
    options = Options()
    defaults = {
        "config": None, "root": store.root, "data_root": None, "container": "web", "tail": None,
        "since": None, "follow": False, "timestamps": False,
    }  # fmt: skip
    options.__dict__.update(defaults | more)
    return options


def write(store, state, *pieces, name="log"):
    """A log as the supervisor writes it: (stream, bytes, time stamp)."""
    with open(f"{store.directory(state.id)}/{name}", "wb") as file:
        for stream, data, stamp in pieces:
            file.write(entries(stream, data, stamp))


def test_streams_stay_apart_and_whole(container, capfdbinary):
    """What went to stdout comes out of stdout, unchanged to the last byte."""
    store, state = container
    log = StreamLog(f"{store.directory(state.id)}/log")
    log.write("stdout", b"one\r\ntwo\x00\xff")
    log.write("stderr", b"bad\n\n")
    log.write("stdout", b" three" * 5000 + b"\nno end")
    log.close()
    assert logs.run(asked(store)) == 0
    out, err = capfdbinary.readouterr()
    assert out == b"one\r\ntwo\x00\xff" + b" three" * 5000 + b"\nno end"
    assert err == b"bad\n\n"


def test_the_rotated_log_comes_first(container, capfdbinary):
    """``log.1`` is older than ``log``."""
    store, state = container
    write(store, state, ("stdout", b"old\n", "2026-01-01T00:00:00.000000000Z"), name="log.1")
    write(store, state, ("stdout", b"new\n", "2026-01-02T00:00:00.000000000Z"))
    logs.run(asked(store))
    assert capfdbinary.readouterr().out == b"old\nnew\n"


@pytest.mark.parametrize(
    ("tail", "text"),
    [("0", b""), ("1", b"c"), ("2", b"b\nc"), ("9", b"a\nb\nc"), ("all", b"a\nb\nc")],
)
def test_tail_counts_lines(container, capfdbinary, tail, text):
    """A line in pieces is one line; the last one may have no end."""
    store, state = container
    stamp = "2026-01-01T00:00:00.000000000Z"
    write(store, state, *[("stdout", piece, stamp) for piece in (b"a\n", b"", b"b", b"\n", b"c")])
    logs.run(asked(store, tail=tail))
    assert capfdbinary.readouterr().out == text


def test_since_and_timestamps(container, capfdbinary):
    """``--since`` leaves out what is older; ``-t`` begins each line with its time."""
    store, state = container
    write(
        store, state,
        ("stdout", b"old\n", "2026-01-01T00:00:00.000000000Z"),
        ("stdout", b"new ", "2026-01-02T00:00:00.000000000Z"),
        ("stdout", b"line\n", "2026-01-02T00:00:00.000000001Z"),
    )  # fmt: skip
    logs.run(asked(store, since="2026-01-01T12:00:00Z", timestamps=True))
    assert capfdbinary.readouterr().out == b"2026-01-02T00:00:00.000000000Z new line\n"


def test_following_ends_with_the_container(container, capfdbinary):
    """``-f`` prints the rest and ends once the container has."""
    store, state = container
    write(store, state, ("stderr", b"x", "2026-01-01T00:00:00.000000000Z"))
    assert logs.run(asked(store, follow=True, since="2025-01-01")) == 0
    assert capfdbinary.readouterr().err == b"x"


def test_following_goes_through_a_rotation(container, monkeypatch):
    """Entries are neither lost nor repeated when the log is rotated meanwhile."""
    store, state = container
    path = f"{store.directory(state.id)}/log"
    write(store, state, ("stdout", b"1\n", "t"))
    ended = []

    def rotate(_seconds):
        with open(path, "ab") as old:
            old.write(entries("stdout", b"2\n", "t"))
        os.rename(path, f"{path}.1")
        write(store, state, ("stdout", b"3\n", "t"))
        ended.append(True)

    monkeypatch.setattr(logs.time, "sleep", rotate)
    log = logs.Log(path)
    found = [text for _, _, _, text in log.follow(lambda: bool(ended)) if text]
    log.close()
    assert found == [b"1", b"2", b"3"]


@given(st.lists(st.tuples(st.sampled_from(["stdout", "stderr"]), st.binary(max_size=40))))
def test_what_is_logged_is_read_back(pieces):
    """Reading undoes writing, for any bytes."""
    reader, writer = os.pipe()
    os.write(writer, b"".join(entries(stream, data, "t") for stream, data in pieces))
    os.close(writer)
    got = {b"stdout": b"", b"stderr": b""}
    for _, stream, ends, text in logs.Splitter().read(reader):
        got[stream] += text + (b"\n" if ends else b"")
    os.close(reader)
    for stream, data in got.items():
        assert data == b"".join(d for s, d in pieces if s.encode() == stream)


@pytest.mark.parametrize("line", [b"", b"t stdout F", b"t stdin F x", b"t stdout X x", b"\xff"])
def test_damaged_entries_are_left_out(line):
    """A log that a full disk cut short is read as far as it goes."""
    assert logs.parse_entry(line) is None
