"""Building the guest image: the distribution's kernel and Python, and our own agent.

The one rule: the result depends on nothing but the packages, our files and the list of kernel
modules; it appears whole under the name of its content, or not at all.
"""

from __future__ import annotations

import hashlib
import os

from kata.image import (
    closure,
    commands,
    cpio,
    debian,
    freshness,
    guest_store,
    guest_tree,
    kernel,
    kernel_modules,
)
from kata.image import interpreter as python
from kata.image.supply import Supply
from kata.runtime.guest_image import FORMAT, MANIFEST, GuestImage
from kata.version import VERSION
from kata.wire.agent_api import api_hash
from kata.wire.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from kata.image.debian import Package

    Say = Callable[[str], None]

KERNEL, INITRD = "vmlinux", "initrd.zst"
OURS = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
_ZSTD = ("zstd", "-q", "-19", "--single-thread", "--no-check", "-c")


@record
class Parts:
    """All that goes into an image, before it is written."""

    kernel: kernel.Kernel
    python: str
    packages: tuple[Package, ...]
    entries: tuple[cpio.Entry, ...]
    agent: closure.Closure


def build(
    destination: str, *, say: Say, cache: str = debian.CACHE, ours: str = OURS, anew: bool = False
) -> GuestImage:
    """Build the image, put it below ``destination`` and make it the default.

    A default image that would come out the same is kept, unless it shall be built ``anew``.
    ``say`` is told of each step; ``ours`` is the directory that holds our package. Raises
    ``HostError`` (no apt, no network, no space, …) or ``ImageError``; nothing is left then.
    """
    debian.require_host()
    commands.require("zstd")
    current = None if anew else freshness.current(destination, ours)
    if current is not None:
        say(f"guest image {current.digest[:12]} is up to date")
        os.utime(f"{current.directory}/{MANIFEST}")  # of several images the youngest is used
        return current
    with guest_store.building(destination) as workdir:
        parts = gather(Supply(cache, say), workdir, ours, say)
        say("packing the first file system")
        tree = cpio.archive(parts.entries, mtime=int(os.environ.get("SOURCE_DATE_EPOCH", "0")))
        initrd = commands.run(_ZSTD, data=tree)
        files = {KERNEL: parts.kernel.image, INITRD: initrd}
        notes = {"recipe": freshness.recipe(ours, [m.name for m in parts.agent.ours])}
        manifest = _manifest(parts, files)
        image = guest_store.publish(destination, workdir, files, manifest, notes)
        os.utime(f"{image.directory}/{MANIFEST}")
    say(
        f"guest image {image.digest[:12]}: kernel {image.kernel_release}, "
        f"{image.sizes[0] / 1e6:.1f} MB; initramfs {image.sizes[1] / 1e6:.1f} MB "
        f"({len(tree) / 1e6:.1f} MB unpacked, {len(parts.kernel.modules)} kernel modules)"
    )
    return image


def gather(supply: Supply, workdir: str, ours: str, say: Say) -> Parts:
    """Everything the image is made of; packages are unpacked below ``workdir``."""
    kernel_name, version = supply.release()
    deb, *pythons = supply.bring([kernel_name, *python.packages(version)])
    say(f"reading {kernel_name}")
    with open(kernel_modules.LIST, encoding="utf-8") as file:
        wanted = kernel_modules.parse(file.read())
    linux = kernel.read(deb, wanted)
    say(f"unpacking Python {version}")
    interpreter = python.unpack(version, f"{workdir}/root", pythons)
    python.libraries(interpreter.root, (interpreter.program,), supply.libraries)
    library = interpreter.library(ours)
    agent = closure.closure(closure.AGENT, library)
    say(f"compiling {len(agent.ours)} modules of ours, {len(agent.stdlib)} of the library")
    entries = [
        *guest_tree.base(),
        guest_tree.init(interpreter.program, interpreter.stdlib),
        *guest_tree.modules(linux.selection, linux.release, linux.modules),
        *_programs(interpreter, agent, supply),
        *_sources(interpreter, agent, library, f"{workdir}/compiled"),
    ]
    used = tuple(supply.used[name] for name in sorted(supply.used))
    return Parts(linux, version, used, tuple(entries), agent)


def _programs(
    interpreter: python.Interpreter, agent: closure.Closure, supply: Supply
) -> list[cpio.Entry]:
    """The interpreter, its extension modules, and the libraries all of them need."""
    root = interpreter.root
    inside = [module.path[len(root) + 1 :] for module in agent.extensions]
    needed = python.libraries(root, (interpreter.program, *inside), supply.libraries)
    entries = [
        cpio.regular(path, _content(f"{root}/{path}"), 0o755)
        for path in (interpreter.program, *inside)
    ]
    for path in needed:
        target = guest_tree.library_path(path.rpartition("/")[2])
        entries.append(cpio.regular(target, _content(f"{root}/{path}"), 0o755))
    return entries


def _sources(
    interpreter: python.Interpreter,
    agent: closure.Closure,
    library: closure.Library,
    scratch: str,
) -> list[cpio.Entry]:
    """Our modules and those of the library, compiled; those inside the interpreter left out."""
    left_out = library.frozen - {guest_tree.LANDMARK}
    jobs = [
        (guest_tree.shown_name(m.name, interpreter.stdlib, package=m.package, ours=ours), m)
        for ours, modules in ((True, agent.ours), (False, agent.stdlib))
        for m in modules
        if m.name not in left_out
    ]
    made = interpreter.compile(jobs, scratch)
    return [cpio.regular(f"{name[1:]}c", data) for (name, _), data in zip(jobs, made, strict=True)]


def _manifest(parts: Parts, files: dict[str, bytes]) -> dict[str, object]:
    def file(name: str) -> dict[str, object]:
        data = files[name]
        return {"file": name, "size": len(data), "sha256": hashlib.sha256(data).hexdigest()}

    return {
        "format": FORMAT,
        "architecture": "x86_64",
        "kernel": {**file(KERNEL), "release": parts.kernel.release},
        "initrd": file(INITRD),
        "agent": {
            "version": VERSION,
            "api_hash": api_hash(),
            "modules": [module.name for module in parts.agent.ours],
        },
        "python": parts.python,
        "kernel_modules": sorted(parts.kernel.modules),
        "packages": [
            {"name": p.name, "version": p.version, "sha256": p.sha256} for p in parts.packages
        ],
    }


def _content(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()
