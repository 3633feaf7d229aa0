"""What is read ahead of a program."""

import os
import sys

from hypothesis import given
from hypothesis import strategies as st

from kata.guest import readahead


def test_a_program_names_its_loader_and_libraries():
    """The interpreter that runs this names its loader, and libraries that are found."""
    with open(os.path.realpath(sys.executable), "rb") as file:
        names = readahead._references(file.read())
    assert any(name.startswith("/lib64/ld-linux") for name in names)
    assert "libc.so.6" in names
    assert os.path.isfile(readahead._located("libc.so.6"))


def test_a_script_names_its_interpreter():
    """Also with an argument; a bare one names nothing."""
    assert readahead._references(b"#! /bin/sh -e\nx") == ["/bin/sh"]
    assert readahead._references(b"#!\n") == []


def test_whatever_cannot_be_read_is_passed_over(tmp_path):
    """Fifos are not waited for; directories, loops and missing files do no harm."""
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "loop").write_text(f"#!{tmp_path}/loop")
    for name in ("fifo", "loop", "", "missing"):
        readahead.program(f"{tmp_path}/{name}")


@given(st.binary(max_size=300))
def test_no_file_is_too_odd(data):
    """Any bytes after ELF's magic are survived."""
    readahead._references(b"\x7fELF\x02\x01" + data)
