"""Reading ELF files, compared with readelf."""

import re
import shutil
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kata.errors import ImageError
from kata.image.elf import Elf

with open(sys.executable, "rb") as _file:
    PROGRAM = _file.read()


def test_needed_libraries():
    """The libraries are those that readelf names."""
    if not shutil.which("readelf"):
        pytest.skip("there is no readelf program")
    shown = subprocess.run(
        ["readelf", "-dW", sys.executable], stdout=subprocess.PIPE, text=True, check=True
    ).stdout
    assert list(Elf(PROGRAM, "python").needed()) == re.findall(r"NEEDED.*\[(.*)\]", shown)


def test_interpreter():
    """A dynamic program names its loader."""
    assert Elf(PROGRAM, "python").interpreter().startswith("/lib64/ld-linux")


def test_sections_that_are_not_there():
    """A section that does not exist is empty."""
    elf = Elf(PROGRAM, "python")
    assert elf.section(".nothing") == b""
    assert elf.modinfo() == {}


@pytest.mark.parametrize("data", [b"", b"MZ", b"\x7fELF\x01\x01" + b"\0" * 99, PROGRAM[:50]])
def test_other_files_are_refused(data):
    """What is no 64-bit ELF file is an error that names the file."""
    with pytest.raises(ImageError, match='"some/file"'):
        Elf(data, "some/file")


@given(st.integers(0, 63), st.binary(min_size=1, max_size=8), st.integers(0, len(PROGRAM)))
def test_damage_is_an_error_of_ours(offset, junk, length):
    """A damaged header or a file cut short gives our error, or an answer, and nothing else."""
    data = bytearray(PROGRAM[:length])
    data[offset : offset + len(junk)] = junk
    try:
        Elf(bytes(data), "x").needed()
    except ImageError:
        pass
