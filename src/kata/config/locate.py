"""Where programs are when a setting leaves it open.

The one rule: a setting that names a path is taken as it is; only an empty one is looked up.
"""

from __future__ import annotations

import os

from kata.errors import HostError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kata.config.settings import Config

_SEARCH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def program(name: str, also: tuple[str, ...] = ()) -> str:
    """The path of a program on ``$PATH``, the usual path, or in ``also``; "" if there is none."""
    path = f"{os.environ.get('PATH', '')}:{_SEARCH}"
    for directory in (*path.split(":"), *also):
        candidate = f"{directory}/{name}"
        if directory.startswith("/") and os.access(candidate, os.X_OK):
            return candidate
    return ""


def _needed(given: str, found: str, what: str, hint: str) -> str:
    path = given or found
    if not path:
        raise HostError(f"{what} was not found", hint=hint)
    if not os.access(path, os.X_OK) or os.path.isdir(path):
        raise HostError(f'{what} "{path}"', why="no program that can be run", hint=hint)
    return path


def qemu(config: Config) -> str:
    """QEMU's program. Raises ``HostError`` if there is none."""
    found = config.hypervisor.path or program("qemu-system-x86_64")
    return _needed(config.hypervisor.path, found, "QEMU", "apt-get install qemu-system-x86")
