"""``process.consoleSize``: what is read of numbers that no terminal has."""

import json

import pytest

from kata.oci.spec import parse, parse_process


@pytest.mark.parametrize(
    ("size", "read"),
    [
        ({}, {"height": 0, "width": 0}),
        ({"width": 80}, {"height": 0, "width": 80}),
        ({"height": (1 << 33) + 24, "width": 70000}, {"height": 24, "width": 4464}),
    ],
)
def test_sizes_of_terminals(size, read):
    """The kernel has 16 bits for each number, and runc takes as many."""
    process = {"args": ["sh"], "cwd": "/", "consoleSize": size}
    spec = {"root": {"path": "rootfs"}, "process": process}
    assert parse(json.dumps(spec))["process"]["consoleSize"] == read
    assert parse_process(json.dumps(process), "p")["consoleSize"] == read
