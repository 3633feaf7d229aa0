"""Small trees of files that the host keeps up to date: what to do for it, and doing it.

The rule: the order is kubelet's for its volumes. What is new is complete before anything leads to
it, a name that is there is replaced by a rename, and what is no longer wanted goes last; so readers
see the old or the new, and watches (inotify) hear what they would on the host.
Source: Kubernetes, pkg/volume/util/atomic_writer.go.
"""

from __future__ import annotations

import os
from _stat import S_ISDIR, S_ISLNK, S_ISREG

from kata.errors import InvalidInput
from kata.linux.syscalls import RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS, openat2
from kata.wire.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from kata.wire.agent_api import Node

_MOST = 1024
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
MAKE, REPLACE, SETTLE, REMOVE = "make", "replace", "settle", "remove"


@record
class Step:
    """One thing to do: ``make`` what is not there, ``replace`` at once, ``settle``, ``remove``.

    To settle is to set owner, mode and time alone.
    """

    verb: str
    path: str


def check(nodes: Iterable[Node]) -> dict[str, Node]:
    """Nodes by path, if they make a tree. Raises ``InvalidInput``."""
    found: dict[str, Node] = {}
    for node in nodes:
        parent = os.path.dirname(node.path)
        below = found.get(parent)
        parts = node.path.split("/") if node.path else []
        if (
            any(part in ("", ".", "..") for part in parts) or "\0" in node.path
            or node.path in found or len(found) >= _MOST
            or not (below is not None and S_ISDIR(below.mode) if parts else S_ISDIR(node.mode))
            or not any(is_kind(node.mode) for is_kind in (S_ISDIR, S_ISREG, S_ISLNK))
        ):  # fmt: skip
            raise InvalidInput(f'tree: node "{node.path[:256]}" has no place in it')
        found[node.path] = node
    if not found:
        raise InvalidInput("tree: it has no top")
    return found


def steps(old: Mapping[str, Node], new: Mapping[str, Node]) -> list[Step]:
    """What makes one tree of another, in order; with an empty ``old`` there is a top only."""
    other = [p for p in old if p in new and S_ISDIR(old[p].mode) != S_ISDIR(new[p].mode)]
    lost = {p for p in old if any(p == top or p.startswith(f"{top}/") for top in other)}
    kept = {path: node for path, node in old.items() if path not in lost}
    made, changed, added = [], [], []
    fresh: set[str] = set()
    for path, node in sorted(new.items()):
        before = kept.get(path)
        if not path:
            if before != node:
                made.append(Step(SETTLE, path))
        elif before is None:
            below_fresh = os.path.dirname(path) in fresh
            if S_ISDIR(node.mode):
                fresh.add(path)
            if S_ISDIR(node.mode) or below_fresh:
                made.append(Step(MAKE, path))
            else:
                added.append(Step(MAKE if S_ISLNK(node.mode) else REPLACE, path))
        elif before != node:
            same = before.content == node.content and not S_ISLNK(node.mode)
            in_place = same and S_ISREG(before.mode) == S_ISREG(node.mode)
            changed.append(Step(SETTLE if in_place else REPLACE, path))
    gone = [path for path in kept if path not in new]
    names = sorted(p for p in gone if "/" not in p and not S_ISDIR(kept[p].mode))
    rest = sorted(set(gone) - set(names), reverse=True)  # what is below comes first
    first = [Step(REMOVE, path) for path in sorted(lost, reverse=True)]
    return [*first, *made, *changed, *added, *(Step(REMOVE, path) for path in (*names, *rest))]


def apply(point: str, have: dict[str, Node], wanted: Mapping[str, Node]) -> None:
    """Make what is below a mount point what is wanted; ``have``, what is there, is kept true.

    Raises ``OSError``; doing it again goes on from there.
    """
    top = os.open(point, _DIRECTORY)
    try:
        for step in steps(have, wanted):
            if step.verb == REMOVE:
                _remove(top, step.path, have[step.path])
                del have[step.path]
                continue
            node = wanted[step.path]
            if step.verb == SETTLE:
                _settle_at(top, node)
            else:
                _put(top, node, _spare(step, have, wanted))
            have[step.path] = node
    finally:
        os.close(top)


def _spare(step: Step, *trees: Mapping[str, Node]) -> str:
    """The name to make something by before it is renamed; "" to make it by its own."""
    if step.verb == MAKE:
        return ""
    path = f"{step.path}_tmp"  # of "..data" it is that of kubelet
    while any(path in tree for tree in trees):
        path += "_"
    return os.path.basename(path)


def _open(top: int, path: str) -> int:
    return openat2(
        top, path or ".", os.O_RDONLY | os.O_NONBLOCK, 0, RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS
    )


def _put(top: int, node: Node, spare: str) -> None:
    head, name = os.path.split(node.path)
    parent = _open(top, head)
    try:
        if not S_ISDIR(node.mode):
            _unlink(parent, spare or name)  # half made when something failed
        _make(parent, spare or name, node)
        if spare:
            os.rename(spare, name, src_dir_fd=parent, dst_dir_fd=parent)
    finally:
        os.close(parent)


def _make(parent: int, name: str, node: Node) -> None:
    if S_ISLNK(node.mode):
        os.symlink(node.content, os.fsencode(name), dir_fd=parent)
        os.chown(name, node.uid, node.gid, dir_fd=parent, follow_symlinks=False)
        return
    if S_ISDIR(node.mode):
        try:
            os.mkdir(name, 0o700, dir_fd=parent)
        except FileExistsError:
            pass  # when something failed
        fd = os.open(name, _DIRECTORY, dir_fd=parent)
    else:
        fd = os.open(name, _NEW, 0o600, dir_fd=parent)
    try:
        content = node.content
        while content:
            content = content[os.write(fd, content) :]
        _settle(fd, node)
    finally:
        os.close(fd)


def _settle_at(top: int, node: Node) -> None:
    fd = _open(top, node.path)
    try:
        _settle(fd, node)
    finally:
        os.close(fd)


def _settle(fd: int, node: Node) -> None:
    os.fchown(fd, node.uid, node.gid)
    os.fchmod(fd, node.mode & 0o7777)  # after the owner: changing that clears bits
    if S_ISREG(node.mode):
        os.utime(fd, ns=(node.mtime_ns, node.mtime_ns))


def _remove(top: int, path: str, node: Node) -> None:
    head, name = os.path.split(path)
    parent = _open(top, head)
    try:
        if S_ISDIR(node.mode):
            os.rmdir(name, dir_fd=parent)
        else:
            _unlink(parent, name)
    finally:
        os.close(parent)


def _unlink(parent: int, name: str) -> None:
    try:
        os.unlink(name, dir_fd=parent)
    except FileNotFoundError:
        pass
