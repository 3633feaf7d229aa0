"""Where guest images are kept: ``<root>/<first 12 of the digest>/`` and the link ``default``.

The one rule: an image appears by one rename, complete; what an interrupted build left is swept
away by the next.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from contextlib import contextmanager

from kata.errors import HostError, NotFound, WrongState
from kata.runtime.guest_image import DEFAULT, MANIFEST, GuestImage, load
from kata.wire.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_WORK = ".build-"
_SHOWN = 12  # hexadecimal digits of a digest in a directory's name


@record
class Stored:
    """One image of the store; ``error`` says why it cannot be used, ``image`` is None then."""

    name: str
    image: GuestImage | None
    default: bool
    error: str = ""


@contextmanager
def building(root: str) -> Iterator[str]:
    """A directory to build in, gone afterwards. Raises ``HostError`` if the disk refuses."""
    path = f"{root}/{_WORK}{os.getpid()}"
    try:
        os.makedirs(root, mode=0o755, exist_ok=True)
        _sweep(root)
        os.mkdir(path, 0o700)
        yield path
    except OSError as error:
        hint = "make room there" if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""
        raise HostError(
            f'building a guest image in "{root}"', why=error.strerror or str(error), hint=hint
        ) from None
    finally:
        shutil.rmtree(path, ignore_errors=True)


def _sweep(root: str) -> None:
    """Remove what builds left that are no longer running."""
    for name in os.listdir(root):
        process = name.removeprefix(_WORK)
        if name.startswith(_WORK) and not os.path.exists(f"/proc/{process}"):
            shutil.rmtree(f"{root}/{name}", ignore_errors=True)


def publish(
    root: str,
    workdir: str,
    files: Mapping[str, bytes],
    manifest: Mapping[str, object],
    notes: Mapping[str, object],
) -> GuestImage:
    """Write an image, give it its name and make it the default; an equal one is kept.

    ``notes`` stand in the manifest, and do not count for the digest.
    """
    text = json.dumps(manifest, sort_keys=True, separators=(",", ":"))
    digest = hashlib.sha256(text.encode()).hexdigest()
    stage, target = f"{workdir}/image", f"{root}/{digest[:_SHOWN]}"
    os.mkdir(stage, 0o755)
    for name, data in files.items():
        _write(f"{stage}/{name}", data)
    shown = json.dumps({"digest": digest, **manifest, **notes}, indent=1) + "\n"
    _write(f"{stage}/{MANIFEST}", shown.encode())
    if _is_good(target, digest):
        os.rename(f"{stage}/{MANIFEST}", f"{target}/{MANIFEST}")
    else:
        if os.path.lexists(target):
            os.rename(target, f"{workdir}/damaged")
        os.rename(stage, target)
    _point(root, digest[:_SHOWN], workdir)
    return load(target)


def _is_good(directory: str, digest: str) -> bool:
    from kata.runtime.guest_image import verify

    try:
        image = load(directory)
        verify(image)
    except (HostError, OSError):
        return False
    return image.digest == digest


def _write(path: str, data: bytes) -> None:
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.chmod(path, 0o644)


def _point(root: str, name: str, workdir: str) -> None:
    link = f"{workdir}/{DEFAULT}"
    os.symlink(name, link)
    os.rename(link, f"{root}/{DEFAULT}")


def list_images(root: str) -> list[Stored]:
    """Every image below ``root``, by name; damaged ones too."""
    if not os.path.isdir(root):
        return []
    default = os.path.basename(os.path.realpath(f"{root}/{DEFAULT}"))
    found = []
    for name in sorted(os.listdir(root)):
        directory = f"{root}/{name}"
        if name == DEFAULT or name.startswith(".") or not os.path.isdir(directory):
            continue
        try:
            found.append(Stored(name, load(directory), name == default))
        except HostError as error:
            found.append(Stored(name, None, name == default, str(error)))
    return found


def remove(root: str, wanted: str, *, last: bool = False) -> str:
    """Remove one image by its name, the beginning of it, or ``default``; gives its name.

    Virtual machines that run keep what they have loaded. Raises ``NotFound`` for none or many, and
    ``WrongState`` for the last one there is unless ``last``.
    """
    names = [stored.name for stored in list_images(root)]
    if wanted == DEFAULT:
        wanted = os.path.basename(os.path.realpath(f"{root}/{DEFAULT}"))
    matching = [n for n in names if n == wanted] or [n for n in names if n.startswith(wanted)]
    if len(matching) != 1 or not wanted:
        why = "there is none of that name" if not matching else "several names begin so"
        raise NotFound(f'guest image "{wanted}"', why=why, hint="kata guest ls")
    name = matching[0]
    if len(names) == 1 and not last:
        raise WrongState(
            f'guest image "{name}" is the only one', why="no container could start without",
            hint=f"kata guest build makes another; kata guest rm --force {name}",
        )  # fmt: skip
    if os.path.realpath(f"{root}/{DEFAULT}") == os.path.realpath(f"{root}/{name}"):
        os.unlink(f"{root}/{DEFAULT}")
    doomed = f"{root}/{_WORK}{os.getpid()}"
    try:
        os.rename(f"{root}/{name}", doomed)
        shutil.rmtree(doomed)
    except OSError as error:
        raise HostError(f'guest image "{name}"', why=error.strerror or "") from None
    return name
