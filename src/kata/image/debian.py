"""Debian packages as building material: found and fetched by apt, never installed.

The one rule: a package is used only when its bytes have the digest that apt's signed index gives.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tarfile
import tempfile
from urllib.parse import unquote

from kata.errors import HostError, Unsupported
from kata.image import commands
from kata.wire.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

CACHE = "/var/cache/kata/packages"
_ARCHITECTURE = "amd64"
_METAPACKAGES = ("linux-image-amd64", "python3-minimal")
_PLAIN = {"LC_ALL": "C.UTF-8", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
_URI = re.compile(r"^'(?P<uri>[^']+)' (?P<file>\S+) (?P<size>\d+) SHA256:(?P<sha256>[0-9a-f]{64})$")

# Shared libraries whose package is not named after the soname, as Debian policy 8.1 wants it.
_LIBRARIES = {"libc.so.6": "libc6", "libm.so.6": "libc6", "libz.so.1": "zlib1g"}


@record
class Package:
    """One version of a package: where apt finds it, and what its file must be (size in bytes)."""

    name: str
    version: str
    file: str
    size: int
    sha256: str


def require_host() -> None:
    """Raises ``Unsupported`` or ``HostError`` where packages of this kind cannot be had."""
    for tool in ("apt-get", "apt-cache", "dpkg-deb", "dpkg"):
        if shutil.which(tool, path=_PLAIN["PATH"]) is None:
            raise HostError(
                f'"{tool}" was not found', why="guest images are built out of Debian packages",
                hint="build on Debian, and copy the image's directory",
            )  # fmt: skip
    architecture = commands.run(["dpkg", "--print-architecture"]).decode().strip()
    if architecture != _ARCHITECTURE:
        raise Unsupported(f'no guest image for architecture "{architecture}"')


def refresh() -> None:
    """Fetch the lists of packages. Raises ``HostError`` when offline."""
    commands.run(["apt-get", "-qq", "update"], environment=_PLAIN)


def _shown(names: Sequence[str]) -> str:
    """What apt knows of the newest version of packages. Raises ``HostError`` if one is unknown."""
    argv = ["apt-cache", "show", "--no-all-versions", *names]
    return commands.run(argv, environment=_PLAIN).decode()


def known() -> frozenset[str]:
    """The names of all packages that apt knows."""
    return frozenset(commands.run(["apt-cache", "pkgnames"], environment=_PLAIN).decode().split())


def release() -> tuple[str, str]:
    """The package of the release's kernel (``linux-image-6.1.0-56-amd64``), its Python (``3.11``).

    Raises ``HostError`` if apt knows none.
    """
    text = _shown(_METAPACKAGES)
    needed = re.findall(r"^(?:Pre-)?Depends: (.*)$", text, re.MULTILINE)
    words = re.split(r"[\s,]+", " ".join(needed))
    kernels = [word for word in words if re.fullmatch(r"linux-image-\d\S*", word)]
    pythons = [word for word in words if re.fullmatch(r"python3\.\d+-minimal", word)]
    if not kernels or not pythons:
        raise HostError(f"packages {' and '.join(_METAPACKAGES)}", why="depend on nothing known")
    return kernels[0], pythons[0].removeprefix("python").removesuffix("-minimal")


def library_packages(soname: str) -> tuple[str, ...]:
    """The packages that may hold a shared library, the likeliest first."""
    if soname.startswith("ld-linux") or soname in _LIBRARIES:
        return (_LIBRARIES.get(soname, "libc6"),)
    name, _, version = soname.partition(".so.")
    joined = f"{name}-{version}" if name[-1:].isdigit() else f"{name}{version}"
    return joined.lower(), f"{joined.lower()}t64"


def available(names: Iterable[str]) -> tuple[Package, ...]:
    """The newest version of each package. Raises ``HostError`` if there is none, or no index."""
    with tempfile.TemporaryDirectory() as empty:
        text = commands.run(
            ["apt-get", "-qq", "--print-uris", "download", *names], environment=_PLAIN, cwd=empty
        ).decode()
    return tuple(_package(line) for line in text.splitlines() if line.startswith("'"))


def _package(line: str) -> Package:
    found = _URI.match(line.strip())
    if found is None:
        raise HostError("apt's index", why=f"no size and SHA-256 in {line!r}")
    name, version = found["file"].split("_")[:2]
    return Package(name, unquote(version), found["file"], int(found["size"]), found["sha256"])


def fetch(packages: Sequence[Package], cache: str, say: Callable[[str], None]) -> None:
    """Bring packages into the directory ``cache``; those already there are checked only.

    Raises ``HostError`` when offline, when the disk is full, or for a wrong digest.
    """
    try:
        os.makedirs(cache, exist_ok=True)
    except OSError as error:
        raise HostError(f'package cache "{cache}"', why=error.strerror or "") from None
    wanted = [p for p in packages if not _is_good(f"{cache}/{p.file}", p)]
    if not wanted:
        return
    size = sum(p.size for p in wanted) / 1e6
    say(f"downloading {', '.join(p.name for p in wanted)} ({size:.1f} MB)")
    partial = tempfile.mkdtemp(prefix=".partial-", dir=cache)
    try:
        exact = [f"{p.name}={p.version}" for p in wanted]
        commands.run(
            ["apt-get", "-qq", "-o", "APT::Sandbox::User=root", "download", *exact],
            environment=_PLAIN, cwd=partial,
        )  # fmt: skip
        for package in wanted:
            path = f"{partial}/{package.file}"
            if not _is_good(path, package):
                raise HostError(f'package "{package.file}"', why="its digest is not apt's")
            os.replace(path, f"{cache}/{package.file}")
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _is_good(path: str, package: Package) -> bool:
    try:
        with open(path, "rb") as file:
            if os.fstat(file.fileno()).st_size != package.size:
                return False
            return hashlib.file_digest(file, "sha256").hexdigest() == package.sha256
    except FileNotFoundError:
        return False


def members(deb: str, wanted: Callable[[str], bool]) -> Iterator[tuple[tarfile.TarInfo, bytes]]:
    """The files of a package that are ``wanted`` by path (``usr/bin/x``), with their content."""
    with commands.reading(["dpkg-deb", "--fsys-tarfile", deb]) as stream:
        with tarfile.open(fileobj=stream, mode="r|") as tar:
            for info in tar:
                info.name = info.name.removeprefix("./")
                if not wanted(info.name):
                    continue
                content = tar.extractfile(info) if info.isreg() else None
                yield info, content.read() if content else b""
