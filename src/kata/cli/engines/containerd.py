"""containerd: a handler for its CRI plugin; ``ctr`` and nerdctl need none.

The one rule: nothing is written that changes what another file has set. Before version 2.0 a file
that is imported replaces whole sections of plugins, and a table of runtimes replaces the one built
in, runc with it; from 2.0 on tables are merged, but no imported file may have a version above the
main file's. Sources: ``containerd-config.toml(5)``, and ``containerd config dump`` in the tests.

A shim that containerd does not find by name has its path as ``runtime_type`` before 2.0 (1.6 knows
``runtime_path``, and looks for the name all the same), and as ``runtime_path`` from then on.
"""

from __future__ import annotations

import tomllib
from posixpath import dirname, join, normpath

from kata.cli.engines.host import SEARCHED
from kata.cli.engines.plan import ByHand, Plan, marked
from kata.errors import InvalidInput, WrongState
from kata.wire.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from kata.cli.engines.host import Host

MAIN = "/etc/containerd/config.toml"
NAME = "50-kata.toml"
TYPE = "io.containerd.kata.v2"
SHIM = "containerd-shim-kata-v2"
MERGING = (2, 0)
# the CRI plugin's name by the version that a file says it has
SECTIONS = {1: "cri", 2: "io.containerd.grpc.v1.cri", 3: "io.containerd.cri.v1.runtime"}
_THEN = "ctr run --rm --runtime {} docker.io/library/debian:12 try uname -r"
_KATA = """\
[plugins."{section}".containerd.runtimes.kata]
{type}privileged_without_host_devices = true
pod_annotations = ["io.katacontainers.*"]
container_annotations = ["io.katacontainers.*"]
"""
_RUNC = """\
[plugins."{section}".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"

"""


@record
class _File:
    """A file that containerd reads."""

    path: str
    settings: dict[str, Any]

    @property
    def level(self) -> int:
        """The version it says it has, as far as it changes the CRI plugin's name."""
        level = self.settings.get("version", 1)
        return max(1, min(level, max(SECTIONS))) if isinstance(level, int) else 1

    def cri(self) -> dict[str, Any] | None:
        """The section of the CRI plugin, whatever its name."""
        plugins = _table(self.settings.get("plugins"))
        return next((_table(plugins[n]) for n in SECTIONS.values() if n in plugins), None)

    def runtimes(self) -> dict[str, Any]:
        """The handlers it names."""
        containerd = _table((self.cri() or {}).get("containerd"))
        return _table(containerd.get("runtimes"))


def plan(host: Host, ours: Callable[[str], bool]) -> Plan:
    """The handler ``kata``; ``ours`` tells whether a file is.

    Raises ``HostError``, ``ByHand``, ``InvalidInput`` for files that cannot be read.
    """
    version = host.version("containerd")
    old = version < MERGING
    shim = _shim(host)
    main = None if ours(MAIN) else _read(host, MAIN)
    if main is None:
        return _written(MAIN, text(2 if old else 3, shim, old=old), shim)
    others = [file for file in _files(host, main) if not ours(file.path)]
    _check_enabled(others, host)
    owners = [file for file in others if file.cri() is not None]
    for file in owners[-1:] if old else owners:
        if _table(file.runtimes().get("kata")).get("runtime_type") in (TYPE, shim or TYPE):
            said = f'"{host.place(file.path)}" has the handler already'
            return Plan("containerd", said=said, then=_THEN.format(shim or TYPE))
    directory = _imported_directory(main)
    if directory and main.level > 1 and not (old and owners):
        return _written(f"{directory}/{NAME}", text(main.level, shim, old=old), shim)
    raise _by_hand(host, version, owners[-1] if owners and old else main, shim)


def text(level: int, shim: str = "", *, old: bool) -> str:
    """A file of ours, for a containerd before 2.0 if ``old``: what it names replaces the rest."""
    return marked("containerd", f"version = {level}\n\n" + lines(level, shim, old=old, runc=old))


def lines(level: int, shim: str = "", *, old: bool, runc: bool) -> str:
    """The handler for a file of this version; ``shim`` is its path, if not found by name."""
    section = SECTIONS[level]
    settings = f'runtime_type = "{shim if shim and old else TYPE}"\n'
    if shim and not old:
        settings += f'runtime_path = "{shim}"\n'
    kata = _KATA.format(section=section, type=settings)
    return (_RUNC.format(section=section) if runc else "") + kata


def _shim(host: Host) -> str:
    """The shim's path where containerd does not find it by its name."""
    path = host.program(SHIM)
    return "" if dirname(path) in SEARCHED else path


def _written(path: str, new: str, shim: str) -> Plan:
    then = _THEN.format(shim or TYPE)
    return Plan("containerd", path, new, restart="systemctl restart containerd", then=then)


def _by_hand(host: Host, version: tuple[int, ...], file: _File, shim: str) -> ByHand:
    path = host.place(file.path)
    said = ".".join(map(str, version[:2]))
    if file.cri() is not None and version < MERGING:
        why = f'"{path}" configures the CRI plugin, and containerd {said} reads that of one file'
    elif file.level < 2:
        why = f'"{path}" is not ours, and says no version, so no other file can add to it'
    else:
        why = f'"{path}" is not ours, and imports no directory for a file of ours'
    old = version < MERGING
    return ByHand(
        "containerd has a configuration of its own", why=why, path=path,
        lines=lines(file.level, shim, old=old, runc=old and not file.runtimes()),
    )  # fmt: skip


def _check_enabled(files: list[_File], host: Host) -> None:
    for file in files:
        off = file.settings.get("disabled_plugins")
        if isinstance(off, list) and set(off) & set(SECTIONS.values()):
            raise WrongState(
                "containerd serves no Kubernetes here, so there is nothing to configure",
                why=f'disabled_plugins in "{host.place(file.path)}" names its CRI plugin',
                hint=f"ctr and nerdctl need nothing but --runtime {TYPE}",
            )


def _files(host: Host, main: _File) -> list[_File]:
    """The main file and those it imports, in the order of reading."""
    found, pending = [main], _imports(main)
    while pending:
        pattern, *pending = pending
        for path in host.matching(pattern):
            if path in [file.path for file in found]:
                continue
            file = _read(host, path)
            if file is not None:
                found.append(file)
                pending += _imports(file)
    return found


def _imports(file: _File) -> list[str]:
    listed = file.settings.get("imports")
    named = [name for name in listed if isinstance(name, str)] if isinstance(listed, list) else []
    return [normpath(join(dirname(file.path), name)) for name in named]


def _imported_directory(main: _File) -> str:
    """A directory of which all ``*.toml`` are imported; "" if there is none."""
    for pattern in _imports(main):
        directory, _, name = pattern.rpartition("/")
        if name in ("*.toml", "*") and "*" not in directory:
            return directory
    return ""


def _read(host: Host, path: str) -> _File | None:
    content = host.read(path)
    if content is None:
        return None
    try:
        return _File(path, tomllib.loads(content))
    except tomllib.TOMLDecodeError as error:
        raise InvalidInput(f'cannot read "{host.place(path)}"', why=str(error)) from None


def _table(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
