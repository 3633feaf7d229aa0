"""``kata guest``: the kernel and image that virtual machines start from."""

from __future__ import annotations

import sys

from kata.cli.context import configuration, for_each
from kata.cli.output import show_facts, show_list
from kata.cli.text import size
from kata.image import guest_store
from kata.runtime import guest_image

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from kata.cli.parse import Options
    from kata.image.guest_store import Stored

HEADERS = ("ID", "DEFAULT", "KERNEL", "PYTHON", "AGENT", "SIZE", "DIRECTORY")


def run(options: Options) -> int:
    """Do what the verb says."""
    actions = {"build": _build, "ls": _list, "rm": _remove}
    return actions[options.verb.split()[1]](options)


def identifiers(options: Options) -> list[str]:
    """The names of the images that can be removed."""
    return [stored.name for stored in guest_store.list_images(_root(options))]


def _root(options: Options) -> str:
    return f"{configuration(options).runtime.data_root}/guest"


def _build(options: Options) -> int:
    from kata.image.guest_builder import build

    image = build(options.output or _root(options), say=_say)
    if options.format == "json":
        show_facts("json", {"id": image.digest[:12], **_facts(image)})
    else:
        print(image.directory)
    return 0


def _list(options: Options) -> int:
    """Those of the data root, and those that were installed with the program."""
    items = [
        _describe(root, stored)
        for root in (_root(options), guest_image.installed_root())
        for stored in guest_store.list_images(root)
    ]
    show_list(options.format, items, HEADERS, lambda item: _row(item, whole=options.no_trunc))
    return 0


def _describe(root: str, stored: Stored) -> dict[str, Any]:
    facts = _facts(stored.image) if stored.image else {"directory": f"{root}/{stored.name}"}
    return {"id": stored.name, "default": stored.default, "error": stored.error or None, **facts}


def _facts(image: guest_image.GuestImage) -> dict[str, Any]:
    return {
        "digest": image.digest,
        "directory": image.directory,
        "kernel": image.kernel_release,
        "python": image.python,
        "agent": image.agent_version,
        "agent_api": image.api_hash,
        "kernel_bytes": image.sizes[0],
        "initrd_bytes": image.sizes[1],
    }


def _row(item: Mapping[str, Any], *, whole: bool) -> Sequence[str]:
    default = "yes" if item["default"] else ""
    if item["error"]:
        return (item["id"], default, "damaged", "", "", "", item["directory"])
    return (
        item["digest"] if whole else item["id"],
        default,
        item["kernel"],
        item["python"],
        item["agent"],
        size(item["kernel_bytes"] + item["initrd_bytes"]),
        item["directory"],
    )


def _remove(options: Options) -> int:
    root = _root(options)

    def remove(name: str) -> None:
        print(guest_store.remove(root, name, last=options.force))

    return for_each(options.images, options, remove)


def _say(text: str) -> None:
    print(f"kata: {text}", file=sys.stderr, flush=True)
