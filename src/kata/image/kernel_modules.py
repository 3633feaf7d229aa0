"""Kernel modules for the guest: what is wanted, what that needs, and in which order it loads.

The one rule: names come from ``kernel_modules.txt``, dependencies from the modules themselves.
"""

from __future__ import annotations

import lzma
import os

from kata.errors import HostError, ImageError
from kata.image import commands
from kata.image.elf import Elf
from kata.wire.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

LIST = os.path.join(os.path.dirname(os.path.abspath(__file__)), "kernel_modules.txt")

_SIGNED = b"~Module signature appended~\n"
_SIGNATURE_FACTS = 12  # bytes between a signature and that


@record
class Wanted:
    """One line of the list: load at ``boot`` or on demand; not all kernels have ``optional`` ones.

    ``after`` are modules to be loaded before it that it does not name itself.
    """

    name: str
    boot: bool
    optional: bool
    after: tuple[str, ...]


@record
class Module:
    """What one module says of itself."""

    name: str
    path: str
    depends: tuple[str, ...]
    aliases: tuple[str, ...]


@record
class Selection:
    """The modules chosen: every one by name, the boot ones in the order they load."""

    modules: Mapping[str, Module]
    boot: tuple[str, ...]
    depends: Mapping[str, tuple[str, ...]]


def canonical(name: str) -> str:
    """A module's name as the kernel has it."""
    return name.replace("-", "_")


def name_of(path: str) -> str:
    """The module in a file such as ``kernel/fs/erofs/erofs.ko.xz``; empty for other files."""
    stem, dot, _ = path.rpartition("/")[2].partition(".ko")
    return canonical(stem) if dot else ""


def parse(text: str) -> tuple[Wanted, ...]:
    """The wanted modules. Raises ``ValueError`` with the number of a bad line."""
    wanted = []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        boot = words[0] == "boot"
        name, *rest = words[1:] if boot else words
        if rest and rest[0] != "after":
            raise ValueError(f'line {number}: "{rest[0]}" where only "after" may stand')
        after = tuple(canonical(n) for n in rest[1:])
        wanted.append(Wanted(canonical(name.rstrip("?")), boot, name.endswith("?"), after))
    return tuple(wanted)


def unpacked(path: str, data: bytes) -> bytes:
    """The module's ELF file, whatever it was compressed by, without a signature.

    Checking one takes the guest 15 million instructions a module, and proves nothing here: who
    can change the image can change the kernel that would check. The format of signatures: the
    kernel's include/linux/module_signature.h.
    """
    if path.endswith(".xz"):
        data = lzma.decompress(data)
    elif path.endswith(".zst"):
        data = commands.run(["zstd", "-dc"], data=data)
    if not data.endswith(_SIGNED):
        return data
    end = len(data) - len(_SIGNED)
    length = int.from_bytes(data[end - 4 : end], "big")
    return data[: end - _SIGNATURE_FACTS - length]


def describe(path: str, data: bytes) -> Module:
    """What a module (unpacked) says of itself. Raises ``ImageError`` if it is none."""
    facts = Elf(data, path).modinfo()
    depends = [canonical(n) for line in facts.get("depends", ()) for n in line.split(",") if n]
    plain = [a for a in facts.get("alias", ()) if not set(a) & set("*?[: ")]
    return Module(name_of(path), path, tuple(depends), tuple(dict.fromkeys(plain)))


def select(
    wanted: tuple[Wanted, ...], known: Mapping[str, Module], builtin: frozenset[str]
) -> Selection:
    """The wanted modules and all that they need. Raises ``HostError`` if the kernel lacks one."""
    extra = {w.name: w.after for w in wanted}
    chosen: dict[str, Module] = {}
    depends: dict[str, tuple[str, ...]] = {}

    def add(name: str, because: str) -> None:
        if name in chosen or name in builtin:
            return
        if name not in known:
            raise HostError(f'kernel module "{name}"', why=f"not in the kernel's package{because}")
        chosen[name] = known[name]
        needs = dict.fromkeys((*extra.get(name, ()), *known[name].depends))
        depends[name] = tuple(n for n in needs if n not in builtin)
        for need in depends[name]:
            add(need, f', and "{name}" needs it')

    for item in wanted:
        if not (item.optional and item.name not in known):
            add(item.name, "")
    order: list[str] = []
    for item in wanted:
        if item.boot and item.name in chosen:
            _append(order, item.name, depends, ())
    return Selection({n: chosen[n] for n in sorted(chosen)}, tuple(order), depends)


def _append(
    order: list[str], name: str, depends: Mapping[str, tuple[str, ...]], above: tuple[str, ...]
) -> None:
    """Put ``name`` behind everything it needs."""
    if name in above:
        raise ImageError(f'kernel module "{name}"', why="needs itself, by way of others")
    if name in order:
        return
    for need in depends[name]:
        _append(order, need, depends, (*above, name))
    order.append(name)


def load_order(name: str, depends: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    """Everything to load for ``name``, in order, itself last."""
    order: list[str] = []
    _append(order, name, depends, ())
    return tuple(order)


def table(selection: Selection, paths: Mapping[str, str]) -> str:
    """``name path dep1,dep2`` per line, dependencies in load order, then each alias likewise.

    ``-`` stands for no dependency. Dashes in names and aliases are underscores.
    """
    lines: dict[str, str] = {}
    for name in selection.modules:
        needs = load_order(name, selection.depends)[:-1]
        lines[name] = f"{paths[name]} {','.join(needs) or '-'}"
    for name, module in selection.modules.items():
        for alias in module.aliases:
            lines.setdefault(canonical(alias), lines[name])
    return "".join(f"{name} {rest}\n" for name, rest in lines.items())
