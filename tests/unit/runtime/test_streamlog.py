"""The container log: CRI entries, byte-exact, bounded."""

import resource
import signal

from hypothesis import given
from hypothesis import strategies as st

from kata.runtime import streamlog
from kata.runtime.streamlog import StreamLog, entries, timestamp


def rebuilt(log):
    """The output that a log stands for."""
    out = b""
    for line in log.split(b"\n")[:-1]:
        _, _, mark, text = line.split(b" ", 3)
        out += text + (b"\n" if mark == b"F" else b"")
    return out


@given(st.binary(max_size=300))
def test_the_output_can_be_rebuilt_to_the_byte(data):
    """Whatever was written is what the log gives back, carriage returns and zeros included."""
    assert rebuilt(entries("stdout", data, "T")) == data


def test_long_lines_are_split_in_pieces():
    """A line longer than an entry is one line in several pieces."""
    data = b"x" * 40000 + b"\n"
    log = entries("stderr", data, "T")
    assert log.count(b" P ") == 2
    assert rebuilt(log) == data


def test_the_time_is_rfc_3339():
    """Nanoseconds in UTC."""
    assert timestamp(1_500_000_001_000_000_002) == "2017-07-14T02:40:01.000000002Z"


def test_the_log_is_bounded(tmp_path, monkeypatch):
    """Two files at most, of at most the given size, the newest output in the first."""
    monkeypatch.setattr(streamlog, "MAX_BYTES", 1000)
    log = StreamLog(str(tmp_path / "log"))
    for number in range(100):
        log.write("stdout", f"line {number}\n".encode())
    log.close()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["log", "log.1"]
    assert all(p.stat().st_size <= 1000 for p in tmp_path.iterdir())
    assert b"line 99" in (tmp_path / "log").read_bytes()


def test_a_full_disk_is_remembered(tmp_path):
    """What cannot be logged is left out whole, and the log says that something is missing."""
    log = StreamLog(str(tmp_path / "log"))
    log.write("stdout", b"first\n")
    assert not log.failure
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    kept = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (60, hard))
    try:
        log.write("stdout", b"x" * 500)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, kept)
    log.close()
    assert log.failure
    assert rebuilt((tmp_path / "log").read_bytes()) == b"first\n"


def test_a_log_that_cannot_be_made(tmp_path):
    """The container runs without."""
    log = StreamLog(str(tmp_path / "missing" / "log"))
    log.write("stdout", b"x\n")
    log.close()
    assert "No such file" in log.failure
