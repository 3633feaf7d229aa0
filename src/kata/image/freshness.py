"""Whether a guest image would come out the same if it were built again.

The one rule: all that goes into an image counts: the newest packages, our sources, the builder.
"""

from __future__ import annotations

import hashlib
import json
import os

from kata.errors import HostError
from kata.image import debian
from kata.runtime.guest_image import DEFAULT, MANIFEST, GuestImage, load, verify

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

_HERE = os.path.dirname(os.path.abspath(__file__))

# The files of this room that make guest images; beside them are those that make other images.
BUILDER = (
    "__init__.py", "bytecode.py", "closure.py", "commands.py", "cpio.py", "debian.py", "elf.py",
    "freshness.py", "guest_builder.py", "guest_store.py", "guest_tree.py", "interpreter.py",
    "kernel.py", "kernel_modules.py", "kernel_modules.txt", "supply.py",
)  # fmt: skip


def recipe(ours: str, modules: Iterable[str]) -> str:
    """A digest of the sources of an agent's modules and of the builder; empty if one is missing."""
    paths = [_source(ours, name) for name in modules]
    paths += [f"{_HERE}/{name}" for name in BUILDER]
    whole = hashlib.sha256(os.environ.get("SOURCE_DATE_EPOCH", "").encode())
    for path in sorted(paths):
        try:
            with open(path, "rb") as file:
                whole.update(hashlib.file_digest(file, "sha256").digest())
        except FileNotFoundError:
            return ""
    return whole.hexdigest()


def _source(ours: str, name: str) -> str:
    path = f"{ours}/{name.replace('.', '/')}"
    return f"{path}/__init__.py" if os.path.isdir(path) else f"{path}.py"


def current(root: str, ours: str) -> GuestImage | None:
    """The default image below ``root`` if it is whole and nothing newer could go into it."""
    directory = f"{root}/{DEFAULT}"
    try:
        image = load(directory)
        with open(f"{directory}/{MANIFEST}", encoding="utf-8") as file:
            manifest = json.load(file)
        verify(image)
    except (HostError, OSError):
        return None
    made_of_this = manifest.get("recipe") == recipe(ours, manifest["agent"]["modules"])
    return image if made_of_this and _has_newest(manifest) else None


def _has_newest(manifest: dict[str, Any]) -> bool:
    """Whether apt knows no newer package; without its lists, those used are the newest known."""
    used = {p["name"]: p["sha256"] for p in manifest["packages"]}
    try:
        newest = {p.name: p.sha256 for p in debian.available(used)}
        kernel, python = debian.release()
    except HostError:
        return False
    return newest == used and kernel in used and f"python{python}-minimal" in used
