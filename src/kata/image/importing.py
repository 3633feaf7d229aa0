"""Images from files and directories that may be anything: told apart, named, or made.

The one rule: what has a name of its own (``docker save`` writes one) keeps it; a bare root file
system becomes an image of one layer whose id depends on nothing but its content.
"""

from __future__ import annotations

import os
import stat
import tarfile

from kata.errors import ImageError, InvalidInput
from kata.image import changes, compression, configuration, erofs, scratch, unpack
from kata.image.oci_layout import digest_of
from kata.image.pull import Options, fetch, finished
from kata.image.reference import has_transport, is_id, normalize
from kata.image.unpack import Built, Work
from kata.wire import quickjson
from kata.wire.record import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from kata.image.store import Image, Store

_DEFAULT = Options()
_MOST_PROBED = 5000  # entries of an archive
_LARGEST_INDEX = 4 << 20


def import_source(source: str, store: Store, options: Options = _DEFAULT) -> Image:
    """Store an image from a file or directory: an image archive, a layout, or a bare root.

    A source with a transport is taken at its word. Without ``options.name`` an image archive's
    own names are used; a bare root stays unnamed. Raises as ``pull.fetch`` does.
    """
    if has_transport(source):
        transport, _, rest = source.partition(":")
        if transport == "docker-archive" and not options.name and os.path.isfile(rest):
            return _docker_archive(rest, store, options)
        return fetch(source, store, options)
    if os.path.isdir(source):
        if os.path.exists(f"{source}/oci-layout"):
            return fetch(f"oci:{source}", store, options)
        return _root(source, store, options)
    if not os.path.isfile(source):
        raise ImageError(f'cannot import "{source}"', why="there is no such file or directory")
    kind = _kind(source)
    if kind == "docker-archive" and not options.name:
        return _docker_archive(source, store, options)
    return fetch(f"{kind}:{source}", store, options) if kind else _root(source, store, options)


def _kind(path: str) -> str:
    """The transport for an archive that holds an image, "" for one that holds a root."""
    found = ""
    for member, _ in _members(path):
        name = member.name.removeprefix("./")
        if name == "oci-layout":
            found = "oci-archive"
        elif name == "manifest.json":
            return "docker-archive"
        if not _of_an_image(name.partition("/")[0]):
            return found
    return found


def _of_an_image(name: str) -> bool:
    """Whether the archive of an image may have this at its top; a root has other things there."""
    known = ("", ".", "blobs", "repositories", "oci-layout")
    return name in known or name.endswith((".json", ".tar")) or (len(name) == 64 and is_id(name))


def _members(path: str) -> Iterator[tuple[tarfile.TarInfo, tarfile.TarFile]]:
    """The first entries of an archive; none of what is no archive."""
    try:
        with open(path, "rb") as file, compression.opened(file) as plain:
            with tarfile.open(fileobj=plain, mode="r|") as archive:  # type: ignore[call-overload]
                for number, member in enumerate(archive):
                    archive.members.clear()
                    if number == _MOST_PROBED:
                        return
                    yield member, archive
    except (tarfile.TarError, ValueError, OverflowError, ImageError):
        return  # whoever unpacks it says what is wrong
    except OSError as error:
        raise ImageError(f'cannot read "{path}"', why=error.strerror or "") from None


def _docker_archive(path: str, store: Store, options: Options) -> Image:
    """Store the image of a ``docker save`` under the names it has there."""
    names = _repo_tags(path)
    with changes.adding(store):
        image = fetch(f"docker-archive:{path}", store, options)
        for name in names:
            changes.tag(store, image.id, name)
    return replace(image, name=names[0] if names else "")


def _repo_tags(path: str) -> list[str]:
    data = b""
    for member, archive in _members(path):
        if member.name == "manifest.json" and member.size <= _LARGEST_INDEX:
            file = archive.extractfile(member)
            data = file.read() if file else b""
            break
    try:
        listed: Any = quickjson.loads(data)
        tags = listed[0].get("RepoTags") or []
        return [normalize(tag) for tag in tags if type(tag) is str]
    except (ValueError, TypeError, LookupError, AttributeError, InvalidInput):
        return []


def _root(source: str, store: Store, options: Options) -> Image:
    """Store a bare root: a directory, or a tar archive of one."""
    name = normalize(options.name) if options.name else ""
    with changes.adding(store):
        try:
            with scratch.directory(store.scratch) as directory:
                built = _layer(source, directory, options)
                with scratch.layer_lock(store.scratch, built.diff_id):
                    layer = unpack.present(store, built.key)
                    layer = layer or unpack.install(store, directory, built)
        except OSError as error:
            raise unpack.failed(store, error) from None
        data = _configuration(built.diff_id)
        with_layer = configuration.configuration(data)
        image = finished(_sha256(data), with_layer, [(layer.path, layer.size)], ())
        changes.add(store, image, name)
    return replace(image, name=name)


def _layer(source: str, directory: str, options: Options) -> Built:
    if os.path.isdir(source):
        newest = _survey(source)
        with options.progress.task(f"packing {source}", 0):
            size = erofs.build(source, f"{directory}/layer.erofs", newest=newest)
        with open(f"{directory}/layer.erofs", "rb") as file:
            digest = digest_of(file)
        return Built(digest, digest, size)
    with open(source, "rb", buffering=0) as file:
        return unpack.build(file, directory, Work(source, options.limits, options.progress))


def _survey(root: str) -> int:
    """The latest time in a tree, in seconds; refuses one with other file systems in it."""
    top = os.stat(root)
    newest, wanted = top.st_mtime_ns, [root]
    while wanted:
        directory = wanted.pop()
        with os.scandir(directory) as entries:
            for entry in entries:
                info = entry.stat(follow_symlinks=False)
                newest = max(newest, info.st_mtime_ns)
                if not stat.S_ISDIR(info.st_mode):
                    continue
                if info.st_dev != top.st_dev:
                    raise ImageError(
                        f'cannot import "{root}"', why=f'"{entry.path}" is another file system',
                        hint="unmount it, or import a copy without it",
                    )  # fmt: skip
                wanted.append(entry.path)
    return -(-newest // 10**9)


def _configuration(diff_id: str) -> bytes:
    rootfs = {"type": "layers", "diff_ids": [f"sha256:{diff_id}"]}
    architecture = configuration.host_architecture()
    value = {"architecture": architecture, "os": "linux", "config": {}, "rootfs": rootfs}
    return quickjson.dumps(value).encode()


def _sha256(data: bytes) -> str:
    from kata.wire.digest import sha256

    return str(sha256(data).hexdigest())
