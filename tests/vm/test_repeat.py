"""Many runs, one after the other and at once, leave nothing behind.

The leak watch compares processes, descriptors, mounts and loop devices; here the machine's network
links, control groups and the state root are looked at too.
"""

import concurrent.futures
import glob

import pytest

from support.vm import IMAGE


def _groups() -> set[str]:
    return {
        path for pattern in ("*/kata*", "kata*", "*/*/kata*")
        for path in glob.glob(f"/sys/fs/cgroup/{pattern}/*/")
    }  # fmt: skip


def _run(kata, number: int) -> str:
    return kata.ok("run", "--rm", IMAGE, "echo", str(number))


def _many(kata, count: int, at_once: int) -> None:
    with concurrent.futures.ThreadPoolExecutor(at_once) as pool:
        outputs = list(pool.map(_run, [kata] * count, range(count)))
    assert outputs == [str(number) for number in range(count)]
    assert kata.left() == []
    assert kata.ok("ps", "-aq") == ""


def test_twenty_in_a_row(kata):
    """Twenty runs in a row all work and leave nothing."""
    _many(kata, 20, 1)


def test_ten_at_once(kata):
    """Ten runs at once all work and leave nothing."""
    _many(kata, 10, 10)


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_a_hundred_in_a_row(kata):
    """A hundred runs in a row all work and leave nothing."""
    _many(kata, 100, 1)
