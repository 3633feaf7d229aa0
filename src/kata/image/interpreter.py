"""The guest's Python: unpacked from Debian packages, asked and used while the image is built.

The one rule: what runs in the guest compiles for the guest; the host's own Python may be another.
"""

from __future__ import annotations

import os

from kata.errors import ImageError
from kata.image import commands, debian
from kata.image.closure import Library, Module
from kata.image.elf import Elf
from kata.wire.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

LIBRARY_PATHS = ("lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu", "lib64", "usr/lib64")
_COMPILER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "bytecode.py")


@record
class Interpreter:
    """A Python of ``version`` (``3.11``) unpacked below the directory ``root``."""

    root: str
    version: str

    @property
    def program(self) -> str:
        """The path of the program inside the guest, without the leading slash."""
        return f"usr/bin/python{self.version}"

    @property
    def stdlib(self) -> str:
        """The path of the standard library inside the guest, without the leading slash."""
        return f"usr/lib/python{self.version}"

    def run(self, arguments: Sequence[str], data: bytes = b"") -> bytes:
        """Run this interpreter on the host, by its own loader and libraries."""
        loader = resolve(self.root, "ld-linux-x86-64.so.2")
        paths = ":".join(f"{self.root}/{path}" for path in LIBRARY_PATHS)
        argv = [f"{self.root}/{loader}", "--library-path", paths, f"{self.root}/{self.program}"]
        environment = {"PYTHONHASHSEED": "0", "PYTHONHOME": f"{self.root}/usr", "LC_ALL": "C.UTF-8"}
        flags = ["-S", "-s", "-B", "-P"]
        return commands.run([*argv, *flags, *arguments], data=data, environment=environment)

    def library(self, ours: str) -> Library:
        """Where modules are found: our package in ``ours``, the rest in this interpreter."""
        builtins, _, frozen = self.run([_COMPILER, "facts"]).decode().partition("\n\n")
        return Library(
            ours, f"{self.root}/{self.stdlib}", frozenset(builtins.split()),
            frozenset(frozen.split()),
        )  # fmt: skip

    def compile(self, jobs: Sequence[tuple[str, Module]], scratch: str) -> list[bytes]:
        """The compiled form of each module, under the file name that tracebacks shall show."""
        os.makedirs(scratch)
        lines = [f"{n}\t{m.path}\t{scratch}/{i}" for i, (n, m) in enumerate(jobs)]
        self.run([_COMPILER], data="\n".join(lines).encode())
        return [_content(f"{scratch}/{i}") for i in range(len(jobs))]


def packages(version: str) -> tuple[str, ...]:
    """The packages of an interpreter."""
    return (
        f"python{version}-minimal",
        f"libpython{version}-minimal",
        f"libpython{version}-stdlib",
    )


def unpack(version: str, root: str, debs: Sequence[str]) -> Interpreter:
    """Unpack the interpreter out of its packages below ``root``."""
    for deb in debs:
        _extract(deb, root, lambda path: path.startswith(("usr/bin/python", "usr/lib/python")))
    return Interpreter(root, version)


def libraries(
    root: str, programs: Sequence[str], fetch: Callable[[Sequence[str]], Sequence[str]]
) -> tuple[str, ...]:
    """The libraries that programs or libraries need, and those they need; unpacked where missing.

    ``fetch`` gives the packages that hold libraries. The result is paths inside the guest.
    Raises ``ImageError`` for a library that is not in its package.
    """
    found: dict[str, str] = {}
    wanted = _needed(root, programs)
    while wanted:
        missing = [soname for soname in wanted if not resolve(root, soname)]
        for deb in fetch(missing) if missing else ():
            _extract(deb, root, _is_library)
        for soname in wanted:
            found[soname] = resolve(root, soname)
            if not found[soname]:
                raise ImageError(f'shared library "{soname}"', why="is not in its package")
        wanted = [s for s in _needed(root, [found[s] for s in wanted]) if s not in found]
    return tuple(found[soname] for soname in sorted(found))


def _needed(root: str, paths: Sequence[str]) -> list[str]:
    sonames: dict[str, None] = {}
    for path in paths:
        elf = Elf(_content(f"{root}/{path}"), path)
        loader = elf.interpreter().rpartition("/")[2]
        sonames.update(dict.fromkeys([*elf.needed(), *([loader] if loader else [])]))
    return list(sonames)


def _is_library(path: str) -> bool:
    return ".so" in path and path.startswith(LIBRARY_PATHS)


def resolve(root: str, soname: str) -> str:
    """Where a library is, if it is anywhere."""
    for directory in LIBRARY_PATHS:
        if os.path.isfile(f"{root}/{directory}/{soname}"):
            return f"{directory}/{soname}"
    return ""


def _extract(deb: str, root: str, wanted: Callable[[str], bool]) -> None:
    for info, content in debian.members(deb, wanted):
        target = f"{root}/{info.name}"
        os.makedirs(os.path.dirname(target), exist_ok=True)
        if info.issym():
            os.symlink(info.linkname, target)
        elif info.isreg():
            with open(target, "wb") as file:
                file.write(content)
            os.chmod(target, info.mode & 0o755)


def _content(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()
