"""``kata-runtime events``: statistics of a container as JSON lines, as runc prints them."""

from __future__ import annotations

import sys
import time

from kata.cli.runtime.containers import connect, find
from kata.errors import InvalidInput, KataError, WrongState
from kata.runtime.store import STOPPED
from kata.wire.agent_api import ContainerRequest, StatsResponse
from kata.wire.quickjson import dumps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from kata.cli.parse import Options

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def run(options: Options) -> int:
    """Print them once, or again and again until the container ends."""
    interval = _seconds(options.interval or "5s")
    store, state = find(options)
    if state.status == STOPPED:
        raise WrongState("container not running")
    client = connect(store, state)
    while True:
        try:
            answer = client.call("Stats", ContainerRequest(container_id=state.id))
        except KataError:
            if options.stats:
                raise
            return 0
        assert isinstance(answer, StatsResponse)
        print(dumps({"type": "stats", "id": state.name, "data": statistics(dict(answer.files))}))
        sys.stdout.flush()
        if options.stats:
            return 0
        time.sleep(interval)


def _seconds(text: str) -> float:
    for unit, factor in _UNITS.items():
        number = text.removesuffix(unit)
        if number != text and number.replace(".", "", 1).isdecimal():
            seconds = float(number) * factor
            if seconds > 0:
                return seconds
    raise InvalidInput(f'invalid --interval "{text}"', why="a duration such as 5s, above zero")


def statistics(files: dict[str, str]) -> dict[str, Any]:
    """runc's document from the files of a version 2 control group."""
    cpu, memory = _table(files, "cpu.stat"), _table(files, "memory.stat")
    usage = _number(files, "memory.current")
    return {
        "cpu": {
            "usage": {
                "total": cpu.get("usage_usec", 0) * 1000,
                "kernel": cpu.get("system_usec", 0) * 1000,
                "user": cpu.get("user_usec", 0) * 1000,
            },
            "throttling": {
                "periods": cpu.get("nr_periods", 0),
                "throttledPeriods": cpu.get("nr_throttled", 0),
                "throttledTime": cpu.get("throttled_usec", 0) * 1000,
            },
        },
        "cpuset": {},
        "memory": {
            "cache": memory.get("file", 0),
            "usage": {
                "limit": _number(files, "memory.max"), "usage": usage,
                "max": _number(files, "memory.peak"),
                "failcnt": _table(files, "memory.events").get("max", 0),
            },
            "swap": {
                "limit": _number(files, "memory.swap.max"),
                "usage": _number(files, "memory.swap.current"), "failcnt": 0,
            },
            "kernel": {"failcnt": 0}, "kernelTCP": {"failcnt": 0},
            "raw": memory,
        },
        "pids": {"current": _number(files, "pids.current"), "limit": _number(files, "pids.max")},
        "blkio": {}, "hugetlb": {}, "intel_rdt": {}, "network_interfaces": None,
    }  # fmt: skip


def _table(files: dict[str, str], name: str) -> dict[str, int]:
    rows = (line.partition(" ") for line in files.get(name, "").splitlines())
    return {key: int(value) for key, _, value in rows if value.isdecimal()}


def _number(files: dict[str, str], name: str) -> int:
    text = files.get(name, "").strip()
    if text == "max":
        return (1 << 64) - 1
    return int(text) if text.isdecimal() else 0
