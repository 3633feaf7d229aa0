"""The guest image: the kernel and the initramfs that virtual machines start from, as installed.

The one rule: an image is used only as its manifest describes it; sizes are checked at every
load, digests by ``verify``. Images are made by ``kata.image.guest_builder``.
"""

from __future__ import annotations

import os

from kata.errors import HostError
from kata.wire.quickjson import loads
from kata.wire.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

MANIFEST = "manifest.json"
FORMAT = 1
DEFAULT = "default"  # the link to the image that is used where none is named
_BUILD = "kata guest build"
_LIMIT = 1 << 20  # bytes of a manifest


@record
class GuestImage:
    """One image; ``digest`` names its whole content, ``api_hash`` the agent's messages.

    ``kernel`` and ``initrd`` are paths; ``sizes`` and ``digests`` theirs, in that order, in bytes
    and as SHA-256.
    """

    directory: str
    digest: str
    kernel: str
    initrd: str
    kernel_release: str
    agent_version: str
    api_hash: str
    python: str
    sizes: tuple[int, int]
    digests: tuple[str, str]


def load(directory: str) -> GuestImage:
    """The image in a directory. Raises ``HostError`` if it is missing or damaged."""
    path = f"{directory}/{MANIFEST}"
    manifest = _read(path)
    try:
        if manifest["format"] != FORMAT:
            raise _damaged(directory, f"format {manifest['format']} is not {FORMAT}")
        image = _image(os.path.realpath(directory), manifest)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _damaged(directory, f"{MANIFEST} lacks or misstates {error}") from None
    for file, size in zip((image.kernel, image.initrd), image.sizes, strict=True):
        _check_size(directory, file, size)
    return image


def find(configured: str, data_root: str) -> GuestImage:
    """The image to use: the one configured, else the younger of ``data_root``'s and the installed.

    Whoever installs another version has built its image then; so has who builds one by hand.
    Raises ``HostError`` if there is none, or if it is damaged.
    """
    if configured:
        return load(configured)
    candidates = (f"{data_root}/guest/{DEFAULT}", f"{installed_root()}/{DEFAULT}")
    there = [candidate for candidate in candidates if os.path.lexists(candidate)]
    if there:
        return load(max(there, key=_built))
    raise HostError(
        "there is no guest image",
        why="neither " + " nor ".join(f'"{c}"' for c in candidates) + " exists",
        hint=_BUILD,
    )


def _built(directory: str) -> int:
    """When an image was built, or last found to be what would be built; ns."""
    try:
        return os.stat(f"{directory}/{MANIFEST}").st_mtime_ns
    except OSError:
        return 0  # damaged; if there is no other, loading it says how


def installed_root() -> str:
    """``<prefix>/share/kata`` of an installation in ``<prefix>/lib/kata``."""
    package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    return os.path.normpath(f"{package}/../../../share/kata")


def verify(image: GuestImage) -> None:
    """Compare the files with their digests. Raises ``HostError`` for the first that differs."""
    from hashlib import file_digest

    for path, digest in zip((image.kernel, image.initrd), image.digests, strict=True):
        with open(path, "rb") as file:
            found = file_digest(file, "sha256").hexdigest()
        if found != digest:
            raise _damaged(image.directory, f'"{os.path.basename(path)}" has another digest')


def _read(path: str) -> dict[str, Any]:
    directory = os.path.dirname(path)
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise HostError(
            f'there is no guest image in "{directory}"', why=f"no {MANIFEST}", hint=_BUILD
        ) from None
    except OSError as error:
        raise HostError(
            f'guest image "{directory}"', why=error.strerror or "", hint=_BUILD
        ) from None
    try:
        value = loads(os.read(fd, _LIMIT))
    except ValueError as error:
        raise _damaged(directory, f"{MANIFEST}: {error}") from None
    finally:
        os.close(fd)
    if not isinstance(value, dict):
        raise _damaged(directory, f"{MANIFEST} holds no object")
    return value


def _image(directory: str, manifest: dict[str, Any]) -> GuestImage:
    names = [str(manifest["kernel"]["file"]), str(manifest["initrd"]["file"])]
    if any("/" in name or not name for name in names):
        raise _damaged(directory, f"{MANIFEST} names files elsewhere")
    kernel, initrd = (f"{directory}/{name}" for name in names)
    return GuestImage(
        directory=directory,
        digest=str(manifest["digest"]),
        kernel=kernel,
        initrd=initrd,
        kernel_release=str(manifest["kernel"]["release"]),
        agent_version=str(manifest["agent"]["version"]),
        api_hash=str(manifest["agent"]["api_hash"]),
        python=str(manifest["python"]),
        sizes=(int(manifest["kernel"]["size"]), int(manifest["initrd"]["size"])),
        digests=(str(manifest["kernel"]["sha256"]), str(manifest["initrd"]["sha256"])),
    )


def _check_size(directory: str, path: str, size: int) -> None:
    name = os.path.basename(path)
    try:
        found = os.stat(path).st_size
    except OSError as error:
        raise _damaged(directory, f'"{name}": {error.strerror}') from None
    if found != size:
        raise _damaged(directory, f'"{name}" has {found} bytes, and {size} were built')


def _damaged(directory: str, why: str) -> HostError:
    return HostError(f'guest image "{directory}" is damaged', why=why, hint=_BUILD)
