"""Loading kernel modules that came along in the image; their order is decided when it is built."""

from __future__ import annotations

import os

from kata.errors import GuestError
from kata.linux import syscalls

_EEXIST = 17


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


def load(name: str) -> None:
    """Load a module by name, wherever it lies below /lib/modules, unless the kernel has it."""
    if os.path.isdir("/sys/module/" + name.replace("-", "_")):
        return
    wanted = {f"{name}.ko", f"{name.replace('_', '-')}.ko", f"{name.replace('-', '_')}.ko"}
    root = f"/lib/modules/{os.uname().release}"
    for directory, _, files in os.walk(root):
        for found in wanted.intersection(files):
            load_file(f"{directory}/{found}")
            return
    raise GuestError(f'kernel module "{name}"', why="is not in the guest image")
