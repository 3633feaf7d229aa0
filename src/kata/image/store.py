"""The images of this host, read path: names and ids to what a container needs of an image.

``<data_root>/images/sha256/<id>.json`` is an image (its id is the digest of its configuration),
``<data_root>/images/names/<whole name>`` a link to the id, ``<data_root>/layers/sha256/*.erofs``
its layers. The one rule: reading takes no lock and imports next to nothing, because every
``kata run`` does it; whatever changes the store is in ``changes`` and is atomic for readers.
"""

from __future__ import annotations

import os

from kata.errors import InvalidInput, NotFound
from kata.image.reference import is_id, normalize
from kata.wire import quickjson
from kata.wire.record import record, replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection
    from typing import Any

    from kata.image.changes import Removed


@record
class Image:
    """An image in the store.

    ``id`` is 64 hexadecimal digits, ``name`` the whole name it was found by ("" by id).
    ``digests`` are of manifests it came with. ``layers`` are EROFS files, lowest first, ``sizes``
    theirs in bytes. ``passwd`` and ``group`` are the texts of the files in /etc, "" if none.
    Times are as the image gives them (RFC 3339) and, for ``stored_ns``, since the epoch.
    """

    id: str
    name: str = ""
    digests: tuple[str, ...] = ()
    created: str = ""
    stored_ns: int = 0
    architecture: str = ""
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    user: str = ""
    working_dir: str = ""
    volumes: tuple[str, ...] = ()
    stop_signal: str = ""
    labels: tuple[tuple[str, str], ...] = ()
    exposed_ports: tuple[str, ...] = ()
    layers: tuple[str, ...] = ()
    sizes: tuple[int, ...] = ()
    passwd: str = ""
    group: str = ""

    @property
    def size(self) -> int:
        """Bytes its layers take on disk."""
        return sum(self.sizes)

    def complete(self) -> bool:
        """Whether every layer is there and as long as it was when it was verified."""
        pairs = zip(self.layers, self.sizes, strict=True)
        try:
            return all(os.stat(path).st_size == size for path, size in pairs)
        except (OSError, ValueError):
            return False


class Store:
    """The images under one data root; nothing is made before something is stored."""

    def __init__(self, data_root: str) -> None:
        self.data_root = data_root
        self.images = f"{data_root}/images/sha256"
        self.names = f"{data_root}/images/names"
        self.archives = f"{data_root}/images/archives"
        self.layers = f"{data_root}/layers/sha256"
        self.scratch = f"{data_root}/tmp"

    def find(self, text: str) -> Image:
        """An image by name, digest, id, or unique beginning of an id; raises ``NotFound``.

        A name goes before an id. An image with a layer missing or cut short counts as not there.
        """
        name, target = self.resolve(text)
        image = self.load(target)
        if image is None or not image.complete():
            hint = f"kata image pull {text}" if name else "kata image ls lists what there is"
            raise NotFound(f'no such image: "{text}"', why="its files are damaged", hint=hint)
        return replace(image, name=name)

    def resolve(self, text: str) -> tuple[str, str]:
        """The name (if that is what it was) and the id; raises ``NotFound``."""
        digest = text[text.rfind("@") + 1 :]
        if digest.startswith("sha256:"):
            return "", self._by_digest(text, digest)
        try:
            name = normalize(text)
            return name, os.readlink(f"{self.names}/{name}")
        except (OSError, InvalidInput):
            pass
        matches = [i for i in self.ids() if i.startswith(text)] if is_id(text) else []
        if len(matches) == 1:
            return "", matches[0]
        if matches:
            raise NotFound(f'"{text}" is ambiguous', why=f"{len(matches)} images match")
        raise NotFound(f'no such image: "{text}"', hint="kata image ls lists what there is")

    def _by_digest(self, text: str, digest: str) -> str:
        wanted = digest[7:]
        if "@" not in text and is_id(wanted):
            matches = [i for i in self.ids() if i.startswith(wanted)]
            if len(matches) == 1:
                return matches[0]
        for known in self.ids():
            image = self.load(known)
            if image is not None and digest in image.digests:
                return known
        raise NotFound(f'no such image: "{text}"', hint="kata image ls lists what there is")

    def load(self, image_id: str) -> Image | None:
        """The image of an id, without a name, its layers not looked at; None if there is none."""
        try:
            with open(f"{self.images}/{image_id}.json", "rb") as file:
                return self._parse(quickjson.loads(file.read()))
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return None

    def _parse(self, raw: dict[str, Any]) -> Image:
        values = {key: raw[key] for key in raw if key in Image.__annotations__}
        for key, value in values.items():
            if type(value) is list:
                values[key] = tuple(value)
        values["labels"] = tuple([(k, v) for k, v in raw["labels"]])
        values["layers"] = tuple([f"{self.layers}/{key}.erofs" for key in raw["layers"]])
        return Image(**values)

    def ids(self) -> list[str]:
        """The ids of all images."""
        try:
            names = os.listdir(self.images)
        except OSError:
            return []
        return [n[:64] for n in names if len(n) == 69 and n.endswith(".json") and is_id(n[:64])]

    def tags(self) -> dict[str, str]:
        """Every name and the id it means."""
        found = {}
        for directory, directories, files in os.walk(self.names):
            directories.sort()
            for file in files:
                path = f"{directory}/{file}"
                try:
                    found[path[len(self.names) + 1 :]] = os.readlink(path)
                except OSError:
                    continue
        return found

    def list(self) -> list[Image]:
        """Every image once for each of its names (once with none), the latest stored first."""
        loaded = {i: image for i in self.ids() if (image := self.load(i)) is not None}
        named = [(name, i) for name, i in sorted(self.tags().items()) if i in loaded]
        named += [("", i) for i in sorted(loaded.keys() - {i for _, i in named})]
        found = [replace(loaded[i], name=name) for name, i in named]
        return sorted(found, key=lambda image: image.stored_ns, reverse=True)

    def remove(self, text: str) -> Removed:
        """Remove a name; with its last name, or by id, the image. Raises ``NotFound``."""
        from kata.image import changes

        return changes.remove(self, text)

    def prune(self, *, everything: bool = False, used: Collection[str] = ()) -> Removed:
        """Remove images without a name, layers without an image, and what crashes left.

        With ``everything`` also images that are not ``used`` (whole names, or ids).
        """
        from kata.image import changes

        return changes.prune(self, everything=everything, used=used)
