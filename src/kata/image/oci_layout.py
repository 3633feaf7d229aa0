"""Directories that hold images: OCI layouts, and what ``skopeo copy … dir:`` writes.

The one rule: a blob is given out only as an open regular file whose size and digest were just
checked, so whatever is made of it is made of what the manifest names. Source: OCI image-spec
v1.1 image-layout.md.
"""

from __future__ import annotations

import contextlib
import os
import stat

from kata.errors import ImageError
from kata.image import configuration
from kata.image.configuration import INDEXES, Blob, Manifest
from kata.wire.digest import sha256

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import IO

_LARGEST_DOCUMENT = 4 << 20  # as registries and containerd have it
_DEEPEST_INDEX = 3


class Layout:
    """A directory with an image; ``blobs`` is where files are named by their digest."""

    def __init__(self, directory: str, blobs: str) -> None:
        self._directory = directory
        self._blobs = blobs

    @contextlib.contextmanager
    def blob(self, blob: Blob) -> Iterator[IO[bytes]]:
        """A blob's file, at its beginning, verified. Raises ``ImageError``."""
        with _regular(f"{self._blobs}/{blob.digest}") as file:
            size = os.fstat(file.fileno()).st_size
            if size != blob.size:
                raise ImageError(
                    f'blob "{blob.digest[:12]}" is damaged',
                    why=f"it has {size} bytes instead of {blob.size}",
                )
            if digest_of(file) != blob.digest:
                raise ImageError(
                    f'blob "{blob.digest[:12]}" is damaged', why="its digest is another one"
                )
            file.seek(0)
            yield file

    def document(self, blob: Blob) -> bytes:
        """A small blob's content."""
        if blob.size > _LARGEST_DOCUMENT:
            raise ImageError(f'blob "{blob.digest[:12]}" is too large', why="it must be JSON")
        with self.blob(blob) as file:
            return _all(file)

    def small_file(self, name: str) -> bytes:
        """A file of the directory itself, bounded."""
        with _regular(f"{self._directory}/{name}") as file:
            data = file.read(_LARGEST_DOCUMENT + 1)
        if len(data) > _LARGEST_DOCUMENT:
            raise ImageError(f'"{self._directory}/{name}" is too large')
        return data


def oci(directory: str, tag: str = "") -> tuple[Layout, Manifest]:
    """An OCI layout and the manifest in it that is meant. Raises ``ImageError``."""
    if not os.path.isdir(directory):
        raise ImageError(f'there is no OCI layout "{directory}"', why="it is not a directory")
    layout = Layout(directory, f"{directory}/blobs/sha256")
    index = configuration.document(layout.small_file("index.json"), "index")
    for _ in range(_DEEPEST_INDEX):
        blob = configuration.choose(index, tag)
        data = layout.document(blob)
        if blob.media_type not in INDEXES:
            return layout, configuration.manifest(data, f"sha256:{blob.digest}")
        index, tag = configuration.document(data, "index"), ""
    raise ImageError(f'the index in "{directory}" is nested too deeply')


def skopeo(directory: str) -> tuple[Layout, Manifest]:
    """What skopeo wrote: the manifest as the source had it, blobs beside it."""
    layout = Layout(directory, directory)
    data = layout.small_file("manifest.json")
    digest = sha256(data).hexdigest()
    return layout, configuration.manifest(data, f"sha256:{digest}")


def split(rest: str) -> tuple[str, str]:
    """``DIR[:TAG]``: a directory whose own name has a colon is taken whole."""
    if os.path.isdir(rest) or ":" not in rest:
        return rest, ""
    directory, _, tag = rest.rpartition(":")
    return (rest, "") if "/" in tag and not os.path.isdir(directory) else (directory, tag)


@contextlib.contextmanager
def _regular(path: str) -> Iterator[IO[bytes]]:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError as error:
        raise ImageError(f'cannot read "{path}"', why=error.strerror or str(error)) from None
    with open(fd, "rb", buffering=0) as file:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise ImageError(f'cannot read "{path}"', why="it is not a regular file")
        yield file


def digest_of(file: IO[bytes]) -> str:
    """The SHA-256 of the rest of a file, hexadecimal."""
    if os.fstat(file.fileno()).st_size < 1 << 20:
        return str(sha256(_all(file)).hexdigest())
    import hashlib  # 7 times as fast as the built-in, once it is loaded

    total = hashlib.sha256()
    while data := file.read(1 << 20):
        total.update(data)
    return total.hexdigest()


def _all(file: IO[bytes]) -> bytes:
    pieces = []
    while data := file.read(1 << 20):
        pieces.append(data)
    return b"".join(pieces)
