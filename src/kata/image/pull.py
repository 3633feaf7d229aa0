"""Images into the store: fetched from wherever a reference points, or made of a bare root.

The one rule: an image is named only when all of it is in the store and verified; until then a
failure or a crash leaves at most whole layers, which the next attempt uses.
"""

from __future__ import annotations

import functools
import os
import time

from kata.errors import ImageError
from kata.image import changes, configuration, flatten, merged, transport
from kata.image.progress import Progress
from kata.image.reference import ARCHIVES, normalize, parse
from kata.image.store import Image
from kata.image.tarstream import Limits
from kata.wire.digest import sha256
from kata.wire.record import record, replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kata.image.configuration import Configuration, Manifest
    from kata.image.oci_layout import Layout
    from kata.image.reference import Reference
    from kata.image.store import Store

_LARGEST_TEXT = 1 << 20  # of /etc/passwd and /etc/group
_SILENT = Progress()


@record
class Options:
    """How to fetch: ``name`` to store it under (a registry's image has one), limits, progress."""

    name: str = ""
    limits: Limits = Limits()
    progress: Progress = _SILENT


def fetch(reference: str, store: Store, options: Options = Options()) -> Image:  # noqa: B008
    """Bring an image into the store, whether or not it is there; what is there is not redone.

    ``reference``: ``oci:DIR[:TAG]``, ``oci-archive:FILE``, ``docker-archive:FILE``, a registry's
    name with or without ``docker://``, or another transport of skopeo. Raises ``InvalidInput``,
    ``ImageError``, ``NotFound``, ``Unsupported``, ``HostError``.
    """
    where = parse(reference)
    name = normalize(options.name) if options.name else where.name
    name = "" if "@" in name else name
    seen = archive_key(where)
    with changes.adding(store):
        image = changes.seen(store, seen) if seen else None
        if image is not None:
            if name:
                changes.tag(store, image.id, name)
            return replace(image, name=name)
        with transport.opened(where, store.scratch, options.progress) as (layout, manifest):
            image = _store(layout, manifest, store, options)
        changes.add(store, image, name)
        if seen:
            changes.remember(store, seen, image.id)
    return replace(image, name=name)


def archive_key(where: Reference) -> str:
    """What tells an archive from any other, and from itself after a change; "" if it is none."""
    if where.transport not in ARCHIVES:
        return ""
    path = where.rest if os.path.exists(where.rest) else where.rest.partition(":")[0]
    try:
        info = os.stat(path)
    except OSError:
        return ""
    facts = (info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns)
    return str(sha256(f"{where} {os.path.realpath(path)} {facts}".encode()).hexdigest())


def _store(layout: Layout, manifest: Manifest, store: Store, options: Options) -> Image:
    """The image with all its layers in place; nothing is named yet."""
    image_id = manifest.config.digest
    known = store.load(image_id)
    if known is not None and known.complete():
        return replace(known, digests=_with(known.digests, manifest.digest))
    config = configuration.configuration(layout.document(manifest.config))
    if len(config.diff_ids) != len(manifest.layers):
        raise ImageError(
            "the image contradicts itself",
            why=f"{len(manifest.layers)} layers, {len(config.diff_ids)} diff ids",
        )
    layers = _layers(layout, manifest, config, store, options)
    if len(layers) > flatten.MOST:
        layers = flatten.at_most(store, layers, options.progress)
    return finished(image_id, config, layers, (manifest.digest,))


def _layers(
    layout: Layout, manifest: Manifest, config: Configuration, store: Store, options: Options
) -> list[tuple[str, int]]:
    from kata.image import unpack

    layers: list[tuple[str, int]] = []
    pairs = list(zip(config.diff_ids, manifest.layers, strict=True))
    for number, (diff_id, blob) in enumerate(pairs, 1):
        below = tuple(path for path, _ in layers)
        text = f"layer {number} of {len(pairs)}"
        work = unpack.Work(text, options.limits, options.progress, below)
        layer = unpack.ensure(store, diff_id, functools.partial(layout.blob, blob), work)
        layers.append((layer.path, layer.size))
    return layers


def finished(
    image_id: str, config: Configuration, layers: list[tuple[str, int]], digests: tuple[str, ...]
) -> Image:
    """The record of an image whose layers are there."""
    paths = tuple(path for path, _ in layers)
    try:
        with merged.opened(paths) as tree:
            passwd = tree.text("etc/passwd", _LARGEST_TEXT)
            group = tree.text("etc/group", _LARGEST_TEXT)
    except ValueError as error:
        raise ImageError("cannot read a stored layer", why=str(error)) from None
    return Image(
        id=image_id,
        digests=digests,
        created=config.created,
        stored_ns=time.time_ns(),
        architecture=config.architecture,
        entrypoint=config.entrypoint,
        cmd=config.cmd,
        env=config.env,
        user=config.user,
        working_dir=config.working_dir,
        volumes=config.volumes,
        stop_signal=config.stop_signal,
        labels=config.labels,
        exposed_ports=config.exposed_ports,
        layers=paths,
        sizes=tuple(size for _, size in layers),
        passwd=passwd,
        group=group,
    )


def _with(digests: tuple[str, ...], digest: str) -> tuple[str, ...]:
    return digests if digest in digests else (*digests, digest)
