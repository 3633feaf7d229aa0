"""Layers seen as one tree, as overlayfs shows them: looking up a path through all of them.

The one rule: the answer is what a process in the container would find, links followed inside
the image, whiteouts and opaque directories respected; nothing is mounted.
"""

from __future__ import annotations

import contextlib
import stat

from kata.image.erofs_reader import Reader

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from kata.image.erofs_reader import Inode

    # the same path in the layers that have it, the topmost first; a directory may be in many
    Found = list[tuple[Reader, Inode]]

_OPAQUE = "trusted.overlay.opaque"
_MOST_LINKS = 40
_LONGEST_LINK = 4096


class Merged:
    """The tree that some layers make together."""

    def __init__(self, readers: Sequence[Reader]) -> None:
        """Take open layers, the lowest first."""
        self.root: Found = _visible([(reader, reader.root) for reader in reversed(readers)])

    def find(self, path: str) -> Found:
        """What is at a path, links followed; empty if nothing is. Raises ``ValueError``."""
        stack, links = [self.root], 0
        wanted = list(reversed(path.split("/")))
        while wanted:
            part = wanted.pop()
            if part in ("", "."):
                continue
            if part == "..":
                stack = stack[:-1] or stack
                continue
            found = _step(stack[-1], part)
            if not found:
                return []
            reader, inode = found[0]
            if stat.S_ISLNK(inode.mode):
                links += 1
                if links > _MOST_LINKS:
                    return []
                target = reader.content(inode, _LONGEST_LINK).decode("utf-8", "surrogateescape")
                stack = stack[:1] if target.startswith("/") else stack
                wanted += reversed(target.split("/"))
            else:
                stack = [*stack, found]
        return stack[-1]

    def directory(self, path: str) -> Inode | None:
        """The directory at a path, no link followed; None if there is none."""
        found = self.root
        for part in path.split("/"):
            if not found or not stat.S_ISDIR(found[0][1].mode):
                return None
            found = _step(found, part)
        return found[0][1] if found and stat.S_ISDIR(found[0][1].mode) else None

    def text(self, path: str, most: int) -> str:
        """The content of a regular file as text; "" if there is none, or above ``most`` bytes."""
        found = self.find(path)
        if not found or not stat.S_ISREG(found[0][1].mode) or found[0][1].size > most:
            return ""
        return found[0][0].content(found[0][1], most).decode("utf-8", "replace")


@contextlib.contextmanager
def opened(layers: Sequence[str]) -> Iterator[Merged]:
    """The tree of EROFS files, the lowest first."""
    with contextlib.ExitStack() as stack:
        yield Merged([stack.enter_context(Reader(path)) for path in layers])


def children(directory: Found) -> dict[str, Found]:
    """What a directory shows, by name."""
    found: dict[str, Found] = {}
    for reader, inode in directory:
        for name, nid in reader.entries(inode):
            if name in (".", ".."):
                continue
            above = found.setdefault(name, [])
            if not above or stat.S_ISDIR(above[-1][1].mode):
                above.append((reader, reader.inode(nid)))
    return {name: shown for name, each in found.items() if (shown := _visible(each))}


def _step(directory: Found, name: str) -> Found:
    found = []
    for reader, inode in directory:
        entry = reader.lookup(inode, name)
        if entry is not None:
            found.append((reader, entry))
            if not stat.S_ISDIR(entry.mode):
                break
    return _visible(found)


def _visible(found: Found) -> Found:
    """What the upper ones leave to be seen of the lower ones."""
    if not found:
        return []
    first = found[0][1]
    if not stat.S_ISDIR(first.mode):
        hidden = stat.S_ISCHR(first.mode) and first.device == 0
        return [] if hidden else found[:1]
    shown = []
    for reader, inode in found:
        if not stat.S_ISDIR(inode.mode):
            break
        shown.append((reader, inode))
        if reader.xattrs(inode).get(_OPAQUE) == b"y":
            break
    return shown
