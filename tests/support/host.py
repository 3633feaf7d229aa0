"""What this machine has: tools, rights; the one rule: what is missing skips here, fails in CI."""

from __future__ import annotations

import os
import shutil
from typing import NoReturn

import pytest

CI = os.environ.get("CI", "") not in ("", "0", "false")


def lacks(what: str) -> NoReturn:
    """Skip the test for want of something; in CI everything must be there."""
    if CI:
        pytest.fail(f"{what} is missing, and in CI nothing may be", pytrace=False)
    pytest.skip(f"{what} is missing")


def need_tool(name: str) -> str:
    """The path of a program the test needs."""
    path = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin:/usr/lib/qemu")
    return path or lacks(f'the program "{name}"')


def need_root() -> None:
    """The test needs to be root, with its capabilities."""
    if os.geteuid() != 0:
        lacks("root")


def wait_until_caught(pid, number):
    """Wait until a process of ours catches a signal. Commands do once their process is there."""
    caught = 0
    while not caught >> (number - 1) & 1:
        with open(f"/proc/{pid}/status", encoding="ascii") as file:
            caught = next(int(x.split()[1], 16) for x in file if x.startswith("SigCgt"))
