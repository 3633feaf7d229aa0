"""``kata factory serve`` and ``kata factory pool``: virtual machines that are ready for engines."""

from __future__ import annotations

import sys
import time

from kata.cli.context import configuration
from kata.cli.output import show_list
from kata.cli.text import age
from kata.errors import InvalidInput, KataError, NotFound
from kata.runtime import pool
from kata.runtime.store import POOL_SOCKET

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from kata.cli.parse import Options
    from kata.config.settings import Config
    from kata.runtime.machines import Launch

_NANO = 1_000_000_000
HEADERS = ("PID", "STATE", "SINCE", "MACHINE", "MEMORY", "VCPUS")
_MOST = 1000


def run(options: Options) -> int:
    """Do what the verb says."""
    return _serve(options) if options.verb == "factory serve" else _list(options)


def _serve(options: Options) -> int:
    """Keep the pool until a signal ends it."""
    from kata.runtime import adoption
    from kata.runtime.keeper import Keeper
    from kata.shim import adoption as shims
    from kata.shim import supervisor as _for_members  # noqa: F401 (in memory once)

    def decide() -> tuple[Config, Launch]:
        from kata.oci.pods import sizing
        from kata.runtime.machines import resolve_shape

        config = configuration(options)
        return config, resolve_shape(sizing({}), config, say=_say)

    size = _size(options, configuration(options))
    adopters = {
        adoption.KIND: adoption.adopt, adoption.RUN: adoption.adopt_run,
        shims.KIND: shims.adopt, shims.SANDBOX: shims.adopt_sandbox,
    }  # fmt: skip
    Keeper(decide, size, adopters, _say, _pack).run()
    return 0


def _pack(tree: str, target: str) -> None:
    """Make a layer to rehearse with; where there are no images it need not be."""
    from kata.image import erofs

    try:
        erofs.build(tree, target, newest=int(time.time()))
    except KataError as error:
        _say(f"kata run is not rehearsed: {error}")


def _size(options: Options, config: Config) -> int:
    if not options.size:
        return config.factory.vm_cache_number
    if not options.size.isdecimal() or not 1 <= int(options.size) <= _MOST:
        raise InvalidInput(f'invalid --size "{options.size}"', why=f"a number from 1 to {_MOST}")
    return int(options.size)


def _list(options: Options) -> int:
    root = configuration(options).runtime.state_root
    found = pool.members(root)
    if found is None:
        raise NotFound(
            "no virtual machines are kept ready", why=f'nobody listens on "{root}/{POOL_SOCKET}"',
            hint="kata factory serve keeps some",
        )  # fmt: skip
    now = time.time_ns()
    show_list(options.format, found, HEADERS, lambda item: _row(item, now))
    return 0


def _row(item: Mapping[str, Any], now_ns: int) -> Sequence[str]:
    return (
        str(item["pid"]), item["state"], age(int(item["since"] * _NANO), now_ns),
        item["accelerator"], f"{item['memory_mib']} MiB", str(item["vcpus"]),
    )  # fmt: skip


def _say(text: str) -> None:
    print(f"kata: {text}", file=sys.stderr, flush=True)
