"""Loading kernel modules that came along in the image; their order is decided when it is built."""

from __future__ import annotations

import os

from kata.errors import GuestError
from kata.linux import syscalls

_EEXIST = 17
TABLE = "/etc/kata/modules.table"


def load_file(path: str) -> None:
    """Load one module file; one that is loaded already is fine."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise GuestError(f'kernel module "{path}"', why=str(error.strerror).lower()) from None
    try:
        syscalls.finit_module(fd)
    except OSError as error:
        if error.errno != _EEXIST:
            raise GuestError(f'kernel module "{path}"', why=str(error.strerror).lower()) from None
    finally:
        os.close(fd)


def load_list(path: str) -> None:
    """Load the modules a file names, one path a line, in that order."""
    try:
        with open(path, "rb", buffering=0) as file:
            names = file.read().decode().split()
    except FileNotFoundError:
        return
    for name in names:
        load_file(name)


def load(name: str, table: str = TABLE) -> None:
    """Load a module, and what it needs first, by its name or an alias of it.

    Raises ``GuestError`` if neither the kernel nor the image has it.
    """
    name = name.replace("-", "_")
    if os.path.isdir(f"/sys/module/{name}"):
        return
    known = _read_table(table)
    if name not in known:
        raise GuestError(f'kernel module "{name}"', why="is not in the guest image")
    path, needs = known[name]
    for other in needs:
        load_file(known[other][0])
    load_file(path)


def _read_table(path: str) -> dict[str, tuple[str, list[str]]]:
    """The table that came with the image: ``name path dependency,dependency`` a line."""
    try:
        with open(path, "rb", buffering=0) as file:
            lines = file.read().decode().splitlines()
    except FileNotFoundError:
        return {}
    rows = (line.split() for line in lines)
    return {n: (path, [] if needs == "-" else needs.split(",")) for n, path, needs in rows}
