"""Small files that the host gives a container, from the agent's side.

The rule: into a root that is the container's own they are written; over others' they are bound.
"""

from __future__ import annotations

import os

from kata.errors import InvalidInput

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kata.wire.agent_api import File

_MAX_FILES, _MAX_FILE = 256, 1 << 20


def write(
    wanted: list[File], directory: str, *, own_root: bool
) -> tuple[list[tuple[str, bytes, int]], list[tuple[str, str, bool]]]:
    """Files to write into a root that is the container's own, and files to bind over others'.

    The first are (path, content, mode), the second (path, source, read-only); their sources are
    made in ``directory``, which is made for them.
    """
    if len(wanted) > _MAX_FILES:
        raise InvalidInput(f"{len(wanted)} files, the limit is {_MAX_FILES}")
    contents: list[tuple[str, bytes, int]] = []
    found: list[tuple[str, str, bool]] = []
    for number, file in enumerate(wanted):
        if len(file.content) > _MAX_FILE or not file.path.startswith("/"):
            raise InvalidInput(f'file "{file.path}" is too large or has no absolute path')
        if own_root and not file.readonly:
            contents.append((file.path, file.content, file.mode & 0o7777 or 0o644))
            continue
        if not found:
            os.mkdir(directory, 0o700)
        source = f"{directory}/{number}"
        fd = os.open(source, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.write(fd, file.content)
            os.fchmod(fd, file.mode & 0o7777 or 0o644)
        finally:
            os.close(fd)
        found.append((file.path, source, file.readonly))
    return contents, found


def remove(path: str) -> None:
    """Remove a container's files, if it has any."""
    if path and os.path.isdir(path):
        for name in os.listdir(path):
            os.unlink(f"{path}/{name}")
        os.rmdir(path)
