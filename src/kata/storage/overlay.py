"""Overlays that an engine asks for as mounts: made on the host, of its directories, and shared.

The one rule: nobody sees such a mount but who is given its descriptor, and it ends with that. The
directories are named to the kernel by descriptors, for fsconfig(2) takes 255 bytes of text.

Sources: Documentation/filesystems/overlayfs.rst, fsopen(2), fsconfig(2), fsmount(2).
"""

from __future__ import annotations

import os

from kata.errors import HostError, InvalidInput
from kata.linux import syscalls as sys
from kata.linux.mounts import known_options
from kata.storage.sources import Source
from kata.wire.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_LOWER, _UPPER, _WORK = "lowerdir", "upperdir", "workdir"


@record
class Overlay:
    """What an overlay is made of: directories, lowest last, and the file system's other options.

    ``upper`` and ``work`` are empty for one that cannot be written.
    """

    lower: tuple[str, ...]
    upper: str = ""
    work: str = ""
    options: tuple[tuple[str, str], ...] = ()


def of(options: Iterable[str]) -> Overlay:
    """The overlay that the options of a mount describe. Raises ``InvalidInput``."""
    passed_over = known_options()
    found: dict[str, str] = {}
    for option in options:
        name, _, value = option.partition("=")
        if option not in passed_over:
            found[name] = value
    lower = tuple(_split(found.pop(_LOWER, "")))
    overlay = Overlay(lower, found.pop(_UPPER, ""), found.pop(_WORK, ""), tuple(found.items()))
    for path in (*lower, *filter(None, (overlay.upper, overlay.work))):
        if not path.startswith("/"):
            raise InvalidInput(f'overlay of "{path}"', why="not an absolute path")
    if not lower:
        raise InvalidInput("an overlay", why=f"it has no {_LOWER}")
    return overlay


def _split(text: str) -> list[str]:
    """Paths between colons; one that belongs to a path has a backslash before it."""
    parts = [""]
    rest = iter(text)
    for letter in rest:
        if letter == "\\":
            parts[-1] += next(rest, "")
        elif letter == ":":
            parts.append("")
        else:
            parts[-1] += letter
    return [part for part in parts if part]


def pin(overlay: Overlay, name: str) -> Source:
    """Mount it where nobody sees it; ``name`` is for people. Raises ``HostError``."""
    held: list[int] = []
    try:
        settings = [(_LOWER, ":".join(_held(path, held) for path in overlay.lower))]
        for key, path in ((_UPPER, overlay.upper), (_WORK, overlay.work)):
            if path:
                settings.append((key, _held(path, held)))
        fd = sys.new_mount("overlay", (*settings, *overlay.options))
    except OSError as error:
        raise HostError(
            f'cannot mount the overlay "{name}"', why=f"{error.strerror} ({error.filename})"
        ) from None
    finally:
        for number in held:
            os.close(number)
    return Source(name, fd, is_directory=True)


def _held(path: str, held: list[int]) -> str:
    held.append(os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
    return f"/proc/self/fd/{held[-1]}"


def view(options: Sequence[str]) -> str:
    """The same for mount(2), to be looked at alone: what is written to it is a layer like others.

    For a second mount of what has an upper directory, which can be but one's.
    """
    overlay = of(options)
    layers = [*([overlay.upper] if overlay.upper else []), *overlay.lower]
    return "lowerdir=" + ":".join(path.replace("\\", "\\\\").replace(":", "\\:") for path in layers)
