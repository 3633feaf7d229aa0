"""Where images come from: what is not a directory is brought into one by ``skopeo``.

The one rule: ``skopeo copy … dir:`` keeps manifests and blobs as the source has them, so digests
stay the registry's; everything it wrote is checked again by ``oci_layout``.
"""

from __future__ import annotations

import contextlib
import os

from kata.errors import HostError, ImageError, NotFound
from kata.image import oci_layout, scratch
from kata.image.configuration import host_architecture
from kata.image.reference import ARCHIVES, LAYOUT, REGISTRY, familiar, is_loopback

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from kata.image.configuration import Manifest
    from kata.image.oci_layout import Layout
    from kata.image.progress import Progress
    from kata.image.reference import Reference

_PROGRAM = "skopeo"
_POLL_S = 0.2
_MISSING = ("manifest unknown", "name unknown", "repository name not known", "not found")
_UNREACHABLE = (
    "dial tcp", "no such host", "connection refused", "i/o timeout", "proxyconnect",
    "tls handshake timeout", "network is unreachable",
)  # fmt: skip
_DAMAGED = (
    "unexpected eof", "invalid tar header", "invalid header", "invalid checksum", "corrupt",
    "missing size",
)  # fmt: skip
_INDEXES = {"docker-archive": "manifest.json", "oci-archive": "index.json"}
_DENIED = ("unauthorized", "authentication required", "access to the resource is denied")


@contextlib.contextmanager
def opened(
    reference: Reference, scratch_root: str, progress: Progress
) -> Iterator[tuple[Layout, Manifest]]:
    """An image as a directory, for as long as the context lasts.

    Raises ``ImageError``, ``NotFound``, ``Unsupported``, ``HostError``.
    """
    if reference.transport == LAYOUT:
        yield oci_layout.oci(*oci_layout.split(reference.rest))
        return
    if reference.transport in ARCHIVES:
        _check_archive(reference)
    with scratch.directory(scratch_root) as directory:
        _copy(reference, directory, progress)
        yield oci_layout.skopeo(f"{directory}/image")


def _check_archive(reference: Reference) -> None:
    """Say plainly what skopeo says in riddles."""
    path = reference.rest
    if not os.path.lexists(path):
        path = path.partition(":")[0]
    if not os.path.isfile(path):
        why = "there is no such file" if not os.path.lexists(path) else "it is not a regular file"
        raise ImageError(f'cannot read the archive "{path}"', why=why)


def command(reference: Reference, target: str) -> list[str]:
    """The command that copies an image into the directory ``target``."""
    words = [_PROGRAM, "--override-os", "linux", "--override-arch", host_architecture(), "copy"]
    if reference.transport == REGISTRY:
        words += ["--retry-times", "2"]
        if is_loopback(reference.name):
            words.append("--src-tls-verify=false")
    return [*words, str(reference), f"dir:{target}"]


def _copy(reference: Reference, directory: str, progress: Progress) -> None:
    import subprocess

    from kata.image.erofs import die_with_parent

    os.mkdir(f"{directory}/temporary")
    label = familiar(reference.name) if reference.name else str(reference)
    try:
        process = subprocess.Popen(
            command(reference, f"{directory}/image"),
            env=dict(os.environ, TMPDIR=f"{directory}/temporary", LC_ALL="C"),
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
            preexec_fn=die_with_parent,  # noqa: PLW1509
        )  # fmt: skip
    except FileNotFoundError:
        raise HostError(
            f'cannot fetch "{label}": there is no program "{_PROGRAM}"', hint="apt install skopeo"
        ) from None
    with process, progress.task(f"fetching {label}", 0) as task:
        try:
            message = _watch(process, f"{directory}/image", task)
        finally:
            process.kill()
    if process.returncode:
        raise _failed(label, message, reference)


def _watch(process: Any, directory: str, task: Any) -> str:
    """Wait for the end, showing how much has come; gives what was said on stderr."""
    import subprocess

    while True:
        try:
            _, said = process.communicate(timeout=_POLL_S)
            return str(said.decode(errors="replace"))
        except subprocess.TimeoutExpired:
            task.at(_size(directory))


def _size(directory: str) -> int:
    total = 0
    try:
        with os.scandir(directory) as entries:
            for entry in entries:
                total += entry.stat(follow_symlinks=False).st_size
    except OSError:
        pass  # not there yet
    return total


def _failed(label: str, message: str, reference: Reference) -> ImageError | NotFound | HostError:
    why = _reason(message)
    low = why.lower()
    what = f'cannot fetch "{label}"'
    if "no space left" in low:
        return HostError(
            what, why="no space left on the device", hint="free some space (kata image prune)"
        )
    if reference.transport in ARCHIVES:
        return _bad_archive(what, why, reference)
    if reference.transport == REGISTRY and any(word in low for word in _UNREACHABLE):
        host = reference.name.partition("/")[0]
        return HostError(
            what, why=f'cannot reach the registry "{host}": {why.rpartition(": ")[2]}',
            hint="check the network, and the proxy (HTTPS_PROXY) if there is one",
        )  # fmt: skip
    if reference.transport == REGISTRY and any(word in low for word in _DENIED):
        return ImageError(
            what, why="the registry refuses, or there is no such image",
            hint="check the name; or log in: skopeo login REGISTRY",
        )  # fmt: skip
    if reference.transport == REGISTRY and any(word in low for word in _MISSING):
        return NotFound(what, why="the registry does not have it", hint="check the name and tag")
    return ImageError(what, why=why)


def _bad_archive(what: str, why: str, reference: Reference) -> ImageError:
    """What skopeo says of files it made for a moment, in words about the archive."""
    cause = why.rpartition(": ")[2]
    if any(word in why.lower() for word in _DAMAGED):
        return ImageError(what, why=f"the archive is cut off or damaged: {cause}")
    index = _INDEXES.get(reference.transport, "")
    if index and index in why and ("no such file" in why or "does not exist" in why):
        other = next(name for name in _INDEXES if name != reference.transport)
        return ImageError(
            what, why=f'the archive has no "{index}", so it is no {reference.transport}',
            hint=f"try {other}:{reference.rest}",
        )  # fmt: skip
    return ImageError(what, why=why)


def _reason(message: str) -> str:
    """The message of skopeo's last fatal line (``time=… level=fatal msg="…"``)."""
    lines = [line for line in message.splitlines() if line.strip()]
    line = next((x for x in reversed(lines) if "level=fatal" in x), lines[-1] if lines else "")
    _, found, text = line.partition(' msg="')
    if not found:
        return line.strip()[:1000] or f'"{_PROGRAM}" failed without a word'
    text = text.strip().removesuffix('"').replace('\\"', '"').replace("\\n", " ")
    return text[:1000]
