"""Linter and type checker are content; the tools see records as the frozen classes they are."""

import os
import subprocess
import sys

import pytest

from support.host import lacks
from support.source import CHECKOUT

BIN = os.path.dirname(sys.executable)


def run(tool: str, *arguments: str, cwd: str = CHECKOUT) -> subprocess.CompletedProcess[str]:
    """Run a tool of the development environment."""
    path = os.path.join(BIN, tool)
    if not os.path.exists(path):
        lacks(f'the tool "{tool}"')
    argv = [path, *arguments]
    return subprocess.run(
        argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=cwd, check=False
    )


def test_ruff():
    """The linter finds nothing."""
    result = run("ruff", "check", "--output-format", "concise", "src", "tests")
    assert result.returncode == 0, result.stdout


def test_mypy():
    """Every function is annotated, and the types hold."""
    result = run("mypy", "--strict", "src/kata")
    assert result.returncode == 0, result.stdout


RECORD = """
from kata.wire.record import record, replace
@record
class Point:
    x: int
    y: int = 2
point = replace(Point(1), y=3)
"""


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("point.x + point.y", ""),
        ("Point('a')", "incompatible type"),
        ("Point()", "Missing positional argument"),
        ("point.z", "has no attribute"),
        ("point.x = 3", "read-only"),
    ],
)
def test_mypy_sees_records(tmp_path, line, complaint):
    """A record's fields have types, and cannot be set."""
    path = tmp_path / "sample.py"
    path.write_text(f"{RECORD}{line}\n")
    result = run(
        "mypy", "--strict", "--cache-dir", os.path.join(CHECKOUT, ".mypy_cache"), str(path)
    )
    assert (complaint in result.stdout) if complaint else result.returncode == 0, result.stdout
