"""Reading the configuration: a file and its drop-ins, or what was parsed of them before.

The one rule: files are parsed once; afterwards only a copy of their values is read, and only where
that copy can be trusted (ours, private, and of these very files and version of the table).
"""

from __future__ import annotations

import os

from kata.config.settings import DROP_INS, ENVIRONMENT, PATH, Config, build, fingerprint
from kata.errors import InvalidConfig

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_LIMIT = 1 << 20  # bytes of a configuration file
_SETTLED_NS = 100_000_000  # younger files may change again without a new time stamp


def load(
    path: str | None = None, *, cache_dir: str | None = None, state_root: str = "",
    data_root: str = "",
) -> Config:  # fmt: skip
    """The configuration of ``path``, else of ``$KATA_CONFIG``, else of the usual file if any.

    The files ``config.d/*.toml`` beside it go before it, the last in the order of names first.
    ``state_root`` and ``data_root`` go before what the file says. ``cache_dir`` is where the
    parsed file is kept: ``<state_root>/cache`` unless given; "" keeps nothing.
    Raises ``InvalidConfig`` for a file that is missing (when named), unreadable or wrong.
    """
    named = path or os.environ.get(ENVIRONMENT, "")
    if cache_dir is None:
        cache_dir = (state_root or "/run/kata") + "/cache"
    values, sources = _values(named, cache_dir)
    for name, given in (("state_root", state_root), ("data_root", data_root)):
        if given:
            values.setdefault("runtime", {})[name] = os.path.abspath(given)
    return build(values, sources)


def _values(named: str, cache_dir: str) -> tuple[dict[str, dict[str, Any]], tuple[str, ...]]:
    path = os.path.abspath(named) if named else PATH
    opened: dict[str, int] = {}
    try:
        for each in (path, *_drop_ins(os.path.dirname(path))):
            fd = _open(each, required=bool(named) and each == path)
            if fd >= 0:
                opened[each] = fd
        return _read(opened, path, cache_dir) if opened else {}, tuple(opened)
    finally:
        for fd in opened.values():
            os.close(fd)


def _open(path: str, *, required: bool) -> int:
    """A descriptor; -1 if there is no such file, and none is required."""
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        if not required:
            return -1
        raise InvalidConfig(
            f'configuration file "{path}"', why="there is no such file",
            hint="name none, and the built-in defaults hold",
        ) from None  # fmt: skip
    except OSError as error:
        raise InvalidConfig(f'configuration file "{path}"', why=str(error.strerror)) from None


def _drop_ins(directory: str) -> list[str]:
    """The files of a directory's ``config.d``, in the order of their names."""
    path = f"{directory}/{DROP_INS}"
    try:
        names = os.listdir(path)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise InvalidConfig(f'configuration directory "{path}"', why=str(error.strerror)) from None
    status = os.stat(path)
    if status.st_mode & 0o002 or status.st_uid not in (0, os.geteuid()):
        raise InvalidConfig(
            f'configuration directory "{path}"', why="others than root may write it",
            hint=f"chown root {path}; chmod o-w {path}",
        )  # fmt: skip
    return [f"{path}/{n}" for n in sorted(names) if n.endswith(".toml") and n[0] != "."]


def _read(opened: dict[str, int], base: str, cache_dir: str) -> dict[str, dict[str, Any]]:
    """The values of open files, the later before the earlier."""
    found = {path: _checked(fd, path) for path, fd in opened.items()}
    key = [
        [[path, s.st_mtime_ns, s.st_size, s.st_dev, s.st_ino] for path, s in found.items()],
        fingerprint(),
    ]
    kept = _kept(cache_dir, base) if cache_dir else None
    if kept is not None and kept.get("key") == key:
        return {group: _tuples(values) for group, values in kept["values"].items()}

    from kata.config.parse import parse

    values: dict[str, dict[str, Any]] = {}
    for path, status in found.items():
        for group, own in parse(_all(opened[path], status.st_size), path).items():
            values.setdefault(group, {}).update(own)
    if cache_dir:
        newest = max(status.st_mtime_ns for status in found.values())
        _keep(cache_dir, base, {"key": key, "values": values}, newest)
    return values


def _checked(fd: int, path: str) -> os.stat_result:
    status = os.fstat(fd)
    if status.st_mode & 0o170000 != 0o100000:
        raise InvalidConfig(f'configuration file "{path}"', why="not a regular file")
    if status.st_mode & 0o002:
        raise InvalidConfig(
            f'configuration file "{path}"', why="everybody may write it",
            hint=f"chmod o-w {path}",
        )  # fmt: skip
    if status.st_size > _LIMIT:
        raise InvalidConfig(f'configuration file "{path}"', why=f"larger than {_LIMIT} bytes")
    return status


def _all(fd: int, size: int) -> bytes:
    data = b""
    while len(data) <= size and (piece := os.read(fd, size + 1)):
        data += piece
    return data


def _tuples(values: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}


def _file(cache_dir: str, path: str) -> str:
    from zlib import crc32

    return f"{cache_dir}/config-{crc32(os.fsencode(path)):08x}.json"


def _kept(cache_dir: str, path: str) -> dict[str, Any] | None:
    """What was kept of a file, if the copy is ours and private."""
    from kata.wire.quickjson import loads

    try:
        fd = os.open(_file(cache_dir, path), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        status = os.fstat(fd)
        if status.st_uid != os.geteuid() or status.st_mode & 0o177777 != 0o100600:
            return None
        value = loads(_all(fd, min(status.st_size, _LIMIT)))
    except (OSError, ValueError):
        return None
    finally:
        os.close(fd)
    return value if isinstance(value, dict) else None


def _keep(cache_dir: str, path: str, value: dict[str, Any], mtime_ns: int) -> None:
    """Keep a parsed file; whatever prevents it only costs time later."""
    from time import time_ns

    from kata.wire.quickjson import dumps

    if not 0 <= mtime_ns < time_ns() - _SETTLED_NS:
        return
    target = _file(cache_dir, path)
    temporary = f"{target}.{os.getpid()}"
    try:
        if not os.path.isdir(cache_dir):
            os.mkdir(cache_dir, 0o700)
        fd = os.open(
            temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600
        )
        try:
            os.fchmod(fd, 0o600)
            os.write(fd, dumps(value).encode())
        finally:
            os.close(fd)
        os.rename(temporary, target)
    except OSError:
        return
