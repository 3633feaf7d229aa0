"""``containerd-shim-kata-v2``: its flags, as Go takes them, and its actions.

    containerd-shim-kata-v2 -namespace NS -id ID -address SOCKET [-publish-binary P] [-debug] start
    containerd-shim-kata-v2 -namespace NS -id ID -address SOCKET -bundle DIR delete
    containerd-shim-kata-v2 -info | -v

Source: containerd ``runtime/v2/shim`` (README). The rule: what containerd reads is on standard
output, what people read on standard error, and nothing else is on either.
"""

from __future__ import annotations

import gc
import os

from kata.errors import InvalidInput, KataError
from kata.shim.order import PROGRAM, Order

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, NoReturn

_TEXTS = ("namespace", "address", "publish-binary", "id", "bundle", "socket", "debug-socket")
_FLAGS = ("debug", "v", "version", "info")
_TRUE = ("1", "t", "T", "true", "True", "TRUE")
_FALSE = ("0", "f", "F", "false", "False", "FALSE")
_HIGHEST_ID = 200  # characters: what a file name takes, with what is put before it


def parse(words: Sequence[str]) -> Order:
    """A command line. Raises ``InvalidInput``."""
    found: dict[str, Any] = {}
    rest = list(words)
    while rest and rest[0].startswith("-") and rest[0] not in ("-", "--"):
        word = rest.pop(0)
        name, equals, value = word.lstrip("-").partition("=")
        if name in _FLAGS:
            if equals and value not in (*_TRUE, *_FALSE):
                raise InvalidInput(f'invalid boolean value "{value}" for -{name}')
            found["version" if name == "v" else name] = not equals or value in _TRUE
        elif name in _TEXTS:
            if not equals and not rest:
                raise InvalidInput(f"flag needs an argument: -{name}")
            found[name.replace("-", "_")] = value if equals else rest.pop(0)
        else:
            raise InvalidInput(f"flag provided but not defined: -{name}")
    return Order(action=rest[0] if rest else "", **found)


def enter(argv: Sequence[str]) -> NoReturn:
    """Run the program to its end."""
    gc.disable()  # what starts a sandbox makes few cycles; the supervisor switches it on again
    os._exit(main(argv))


def main(argv: Sequence[str]) -> int:
    """Run a command line; gives the exit code."""
    try:
        return _run(parse(argv))
    except KataError as error:
        _complain(error)
        return 1


def _run(order: Order) -> int:
    if order.version:
        from kata.version import VERSION

        _print(f"{PROGRAM} version {VERSION}\n".encode())
        return 0
    if order.info:
        from kata.shim.info import info

        _print(info())
        return 0
    if order.action not in ("start", "delete"):
        raise InvalidInput(
            f'unknown action "{order.action}"' if order.action else "no action is given",
            why="containerd calls this with start or delete; what serves is forked by start",
        )
    check(order)
    if order.action == "start":
        from kata.shim.start import start

        _print(start(order, os.getcwd()).encode())
        return 0
    from kata.shim.delete import delete

    _print(delete(order))
    return 0


def check(order: Order) -> None:
    """Raise ``InvalidInput`` unless the container is named by something that names a file."""
    for name, value in (("namespace", order.namespace), ("id", order.id)):
        if not value:
            raise InvalidInput(f"shim {name} cannot be empty", hint=f"give -{name}")
        if "/" in value or value in (".", "..") or len(value) > _HIGHEST_ID:
            raise InvalidInput(f'shim {name} "{value}"', why="no name of a file")


def _print(data: bytes) -> None:
    while data:
        data = data[os.write(1, data) :]


def _complain(error: KataError) -> None:
    hint = f"\n  hint: {error.hint}" if error.hint else ""
    try:
        os.write(2, f"{PROGRAM}: {error}{hint}\n".encode())
    except OSError:
        pass
