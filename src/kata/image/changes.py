"""The images of this host, write path: adding, naming, removing.

The one rule: every step is one rename or unlink, so a reader sees the store before or after it,
and a crash between two leaves only what ``prune`` removes. Layers are removed only under the
exclusive lock, which everyone who adds an image shares from its first layer to its last name.
"""

from __future__ import annotations

import contextlib
import os

from kata.errors import HostError, NotFound, WrongState
from kata.image import scratch
from kata.wire import quickjson
from kata.wire.record import fields, record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from kata.image.store import Image, Store


@record
class Removed:
    """What was removed: names, ids of images, layers (digests), leftovers (paths); bytes freed."""

    names: tuple[str, ...] = ()
    images: tuple[str, ...] = ()
    layers: tuple[str, ...] = ()
    leftovers: tuple[str, ...] = ()
    size: int = 0


@contextlib.contextmanager
def adding(store: Store) -> Iterator[None]:
    """Nobody removes layers meanwhile; makes the directories. Raises ``HostError``."""
    try:
        for path in (store.images, store.names, store.layers, store.scratch):
            os.makedirs(path, 0o700, exist_ok=True)
    except OSError as error:
        raise cannot_write(store.data_root, error) from None
    with scratch.shared(_lock_path(store)):
        yield


def cannot_write(path: str, error: OSError) -> HostError:
    """The error for a store that cannot be written."""
    return HostError(
        f'cannot write to the data directory "{path}"',
        why=error.strerror or str(error),
        hint="run as root, free some space, or choose another with --data-root",
    )


def _lock_path(store: Store) -> str:
    return f"{store.data_root}/images/lock"


def add(store: Store, image: Image, name: str = "") -> None:
    """Store an image whose layers are in place, under a whole name if there is one."""
    known = store.load(image.id)
    values = fields(image)
    del values["name"]
    if known is not None:
        values["digests"] = tuple(dict.fromkeys(known.digests + image.digests))
    values["layers"] = tuple(os.path.basename(path)[:-6] for path in image.layers)
    write_atomic(f"{store.images}/{image.id}.json", quickjson.dumps(values).encode())
    if name:
        tag(store, image.id, name)


def tag(store: Store, image_id: str, name: str) -> None:
    """Let a whole name mean an image, whatever it meant before."""
    path = f"{store.names}/{name}"
    temporary = f"{store.images}/{os.getpid()}.{os.urandom(4).hex()}.link"
    try:
        os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
        os.symlink(image_id, temporary)
        os.rename(temporary, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise cannot_write(store.data_root, error) from None


def remember(store: Store, key: str, image_id: str) -> None:
    """Note that an archive (by a key of its identity) holds an image, to spare its next reading."""
    path = f"{store.archives}/{key}"
    with contextlib.suppress(OSError):  # it only saves time
        os.makedirs(store.archives, 0o700, exist_ok=True)
        _unlink(path)
        os.symlink(image_id, path)


def seen(store: Store, key: str) -> Image | None:
    """The image of an archive that was read before, if all of it is still there."""
    try:
        image = store.load(os.readlink(f"{store.archives}/{key}"))
    except OSError:
        return None
    return image if image is not None and image.complete() else None


def remove(store: Store, text: str) -> Removed:
    """Remove a name; with its last name, or by id, the image and the layers only it had."""
    name, image_id = store.resolve(text)
    others = [n for n, i in store.tags().items() if i == image_id and n != name]
    names = [name] if name else others
    for doomed in names:
        _untag(store, doomed)
    if name and others:
        return Removed(names=(name,))
    if store.load(image_id) is None and not name:
        raise NotFound(f'no such image: "{text}"')
    _unlink(f"{store.images}/{image_id}.json")
    with scratch.shared(_lock_path(store), exclusive=True) as alone:
        layers, size = _sweep_layers(store) if alone else ((), 0)
    return Removed(tuple(names), (image_id,), layers, (), size)


def prune(store: Store, *, everything: bool, used: Collection[str]) -> Removed:
    """Remove unnamed images (with ``everything`` all not used), loose layers, and leftovers.

    Raises ``WrongState`` while an image is being added.
    """
    if not os.path.isdir(store.images):
        return Removed()
    with scratch.shared(_lock_path(store), exclusive=True) as alone:
        if not alone:
            raise WrongState("cannot prune now", why="an image is being stored", hint="try again")
        tags = store.tags()
        kept = {i for n, i in tags.items() if not everything or n in used} | set(used)
        doomed = [i for i in store.ids() if i not in kept]
        names = tuple(n for n, i in tags.items() if i in doomed or store.load(i) is None)
        for name in names:
            _untag(store, name)
        for image_id in doomed:
            _unlink(f"{store.images}/{image_id}.json")
        for stray in set(os.listdir(store.images)) - {f"{i}.json" for i in store.ids()}:
            _unlink(f"{store.images}/{stray}")
        for key in os.listdir(store.archives) if os.path.isdir(store.archives) else ():
            if seen(store, key) is None:
                _unlink(f"{store.archives}/{key}")
        layers, size = _sweep_layers(store)
        leftovers = tuple(scratch.collect(store.scratch))
    return Removed(names, tuple(doomed), layers, leftovers, size)


def _sweep_layers(store: Store) -> tuple[tuple[str, ...], int]:
    """Remove the layers that no image has; an unreadable image file keeps nothing."""
    images = [image for i in store.ids() if (image := store.load(i)) is not None]
    kept = {os.path.basename(path) for image in images for path in image.layers}
    removed, size = [], 0
    for file in sorted(os.listdir(store.layers)) if os.path.isdir(store.layers) else ():
        if file not in kept:
            path = f"{store.layers}/{file}"
            size += os.stat(path).st_size
            _unlink(path)
            removed.append(file.removesuffix(".erofs"))
    return tuple(removed), size


def _untag(store: Store, name: str) -> None:
    path = f"{store.names}/{name}"
    _unlink(path)
    parent = os.path.dirname(path)
    with contextlib.suppress(OSError):  # as far up as they are empty
        while parent != store.names:
            os.rmdir(parent)
            parent = os.path.dirname(parent)


def write_atomic(path: str, data: bytes) -> None:
    """Write a file so that a reader, or a power cut, sees the old or the new content whole."""
    temporary = f"{path}.{os.getpid()}.new"
    try:
        with open(temporary, "wb", opener=_private) as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.rename(temporary, path)
    except OSError as error:
        _unlink(temporary)
        raise cannot_write(os.path.dirname(path), error) from None


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _unlink(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
