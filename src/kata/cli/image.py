"""``kata image``: the images of the local store."""

from __future__ import annotations

import time

from kata.cli.context import configuration, for_each, open_store
from kata.cli.output import print_json, show_list
from kata.cli.text import age, moment, shorten, size
from kata.errors import KataError
from kata.image import changes
from kata.image.reference import familiar
from kata.image.store import Image, Store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from kata.cli.parse import Options
    from kata.image import pull
    from kata.image.changes import Removed

HEADERS = ("REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE")
_ID = 12
_WIDTH = 50  # of a repository


def run(options: Options) -> int:
    """Do what the verb says."""
    actions = {"ls": _list, "pull": _pull, "import": _import, "rm": _remove, "prune": _prune}
    return actions[options.verb.split()[1]](options, _store(options))


def fetch(reference: str, store: Store, *, name: str = "", quiet: bool = False) -> Image:
    """Bring an image into the store, showing how far that is; see ``kata.image.pull.fetch``."""
    from kata.image import pull

    return pull.fetch(reference, store, _how(name, quiet=quiet))


def _how(name: str, *, quiet: bool) -> pull.Options:
    from kata.cli.extras import available
    from kata.image import progress, pull

    available()
    return pull.Options(name=name, progress=progress.for_people(quiet=quiet))


def names(options: Options) -> list[str]:
    """The names of all images, as people write them."""
    return [familiar(name) for name in sorted(_store(options).tags())]


def _store(options: Options) -> Store:
    return Store(configuration(options).runtime.data_root)


def _list(options: Options, store: Store) -> int:
    images = store.list()
    if options.quiet and options.format != "json":
        for image_id in dict.fromkeys(image.id for image in images):
            print(image_id if options.no_trunc else image_id[:_ID])
        return 0
    now = time.time_ns()
    items = [describe(image) for image in images]
    show_list(
        options.format, items, HEADERS, lambda item: row(item, now, whole=options.no_trunc)
    )
    return 0


def describe(image: Image) -> dict[str, Any]:
    """An image as a JSON object."""
    return {
        "id": image.id,
        "name": image.name or None,
        "digests": list(image.digests),
        "created": image.created or None,
        "stored": moment(image.stored_ns),
        "architecture": image.architecture,
        "size": image.size,
        "layers": list(image.layers),
        "entrypoint": list(image.entrypoint),
        "cmd": list(image.cmd),
        "env": list(image.env),
        "user": image.user,
        "working_dir": image.working_dir,
        "volumes": list(image.volumes),
        "exposed_ports": list(image.exposed_ports),
        "stop_signal": image.stop_signal,
        "labels": dict(image.labels),
    }


def row(item: Mapping[str, Any], now_ns: int, *, whole: bool = False) -> Sequence[str]:
    """An image as a line of the table."""
    repository, tag = _parted(familiar(item["name"] or ""))
    return (
        repository if whole else shorten(repository, _WIDTH),
        tag,
        item["id"] if whole else item["id"][:_ID],
        age(_nanoseconds(item["created"] or ""), now_ns),
        size(item["size"]),
    )


def _parted(name: str) -> tuple[str, str]:
    """Repository and tag of a name; an image without a name has ``<none>``, as in Docker."""
    if not name:
        return "<none>", "<none>"
    if "@" in name:
        return name.partition("@")[0], "<none>"
    repository, _, tag = name.rpartition(":")
    return repository, tag


def _nanoseconds(text: str) -> int:
    """A time of an image's configuration; 0 if it has none, or one that nobody can read."""
    from datetime import datetime

    try:
        return max(0, int(datetime.fromisoformat(text).timestamp())) * 1_000_000_000
    except (ValueError, OverflowError):
        return 0


def _pull(options: Options, store: Store) -> int:
    def act(reference: str) -> None:
        _report(fetch(reference, store, quiet=options.quiet), options)

    return for_each(options.references, options, act)


def _import(options: Options, store: Store) -> int:
    from kata.image.importing import import_source

    how = _how(options.name or "", quiet=options.quiet)
    _report(import_source(options.source, store, how), options)
    return 0


def _report(image: Image, options: Options) -> None:
    if options.quiet:
        print(image.id)
    else:
        print(familiar(image.name) if image.name else image.id)


def _remove(options: Options, store: Store) -> int:
    def act(name: str) -> None:
        _tell(changes.remove(store, name))

    return for_each(options.images, options, act)


def _prune(options: Options, store: Store) -> int:
    used = _used(options, store) if options.all else set()
    removed = changes.prune(store, everything=options.all, used=used)
    if options.format == "json":
        print_json(
            {
                "names": list(removed.names),
                "images": list(removed.images),
                "layers": list(removed.layers),
                "leftovers": list(removed.leftovers),
                "freed_bytes": removed.size,
            }
        )
        return 0
    _tell(removed)
    print(f"freed {size(removed.size)}")
    return 0


def _used(options: Options, store: Store) -> set[str]:
    """Names and ids of the images of all containers."""
    used = set()
    for state in open_store(options).list():
        used.add(state.image)
        try:
            used.add(store.resolve(state.image)[1])
        except KataError:
            continue  # a directory, or an image that is gone
    return used


def _tell(removed: Removed) -> None:
    for name in removed.names:
        print(f"untagged {familiar(name)}")
    for image_id in removed.images:
        print(f"removed image {image_id[:_ID]}")
    for layer in removed.layers:
        print(f"removed layer {layer[:_ID]}")
    for path in removed.leftovers:
        print(f"removed {path}")
