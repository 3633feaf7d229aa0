"""``kata-runtime update``: new limits for a running container."""

from __future__ import annotations

import sys

from kata.cli.runtime.containers import connect, find
from kata.errors import InvalidInput, Unsupported, WrongState
from kata.oci.spec import parse_resources
from kata.runtime.control_api import UpdateRequest
from kata.runtime.store import STOPPED
from kata.wire.quickjson import dumps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from kata.cli.parse import Options

# flag -> where its number goes in linux.resources
_NUMBERS = {
    "blkio_weight": ("blockIO", "weight"), "cpu_period": ("cpu", "period"),
    "cpu_quota": ("cpu", "quota"), "cpu_burst": ("cpu", "burst"), "cpu_share": ("cpu", "shares"),
    "cpu_rt_period": ("cpu", "realtimePeriod"), "cpu_rt_runtime": ("cpu", "realtimeRuntime"),
    "cpu_idle": ("cpu", "idle"), "pids_limit": ("pids", "limit"),
}  # fmt: skip
_SIZES = {
    "memory": ("memory", "limit"), "memory_reservation": ("memory", "reservation"),
    "memory_swap": ("memory", "swap"),
}  # fmt: skip
_TEXTS = {"cpuset_cpus": ("cpu", "cpus"), "cpuset_mems": ("cpu", "mems")}
_UNITS = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}


def run(options: Options) -> int:
    """Set them."""
    if options.l3_cache_schema or options.mem_bw_schema:
        raise Unsupported("Intel RDT is not supported", why="a guest has no resctrl")
    resources = _read(options.resources) if options.resources else _collected(options)
    store, state = find(options)
    if state.status == STOPPED:
        raise WrongState("container not running")
    client = connect(store, state)
    request = UpdateRequest(container_id=state.id, resources=dumps(resources).encode())
    client.call("Update", request)
    return 0


def _read(path: str) -> dict[str, Any]:
    if path == "-":
        return parse_resources(sys.stdin.buffer.read(), "-")
    try:
        with open(path, "rb") as file:
            return parse_resources(file.read(), path)
    except OSError as error:
        raise InvalidInput(f'resources file "{path}"', why=error.strerror or "") from None


def _collected(options: Options) -> dict[str, Any]:
    """The resources that the flags ask for."""
    found: dict[str, dict[str, Any]] = {}
    for table, convert in ((_NUMBERS, _number), (_SIZES, _size), (_TEXTS, str)):
        for flag, (group, field) in table.items():
            value = getattr(options, flag)
            if value is not None:
                found.setdefault(group, {})[field] = convert(value)
    return found


def _number(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise InvalidInput(f'invalid value "{text}"', why="not a number") from None


def _size(text: str) -> int:
    digits = text.rstrip("bBkKmMgGtTiI")
    unit = text[len(digits) :].lower().removesuffix("b").removesuffix("i")
    if unit not in _UNITS:
        raise InvalidInput(f'invalid value "{text}"', why="not a size")
    return _number(digits) * _UNITS[unit]
