"""Reading the configuration: a file, or what was parsed of it before.

The one rule: a file is parsed once; afterwards only a copy of its values is read, and only where
that copy can be trusted (ours, private, and of this very file and version of the table).
"""

from __future__ import annotations

import os

from kata.config.settings import ENVIRONMENT, PATH, Config, build, fingerprint
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

    ``state_root`` and ``data_root`` go before what the file says. ``cache_dir`` is where the
    parsed file is kept: ``<state_root>/cache`` unless given; "" keeps nothing.
    Raises ``InvalidConfig`` for a file that is missing (when named), unreadable or wrong.
    """
    named = path or os.environ.get(ENVIRONMENT, "")
    if cache_dir is None:
        cache_dir = (state_root or "/run/kata") + "/cache"
    values, source = _values(named, cache_dir)
    for name, given in (("state_root", state_root), ("data_root", data_root)):
        if given:
            values.setdefault("runtime", {})[name] = os.path.abspath(given)
    return build(values, source)


def _values(named: str, cache_dir: str) -> tuple[dict[str, dict[str, Any]], str]:
    path = os.path.abspath(named) if named else PATH
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        if not named:
            return {}, ""
        raise InvalidConfig(
            f'configuration file "{path}"', why="there is no such file",
            hint="name none, and the built-in defaults hold",
        ) from None  # fmt: skip
    except OSError as error:
        raise InvalidConfig(f'configuration file "{path}"', why=str(error.strerror)) from None
    try:
        return _read(fd, path, cache_dir), path
    finally:
        os.close(fd)


def _read(fd: int, path: str, cache_dir: str) -> dict[str, dict[str, Any]]:
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
    key = [
        path, status.st_mtime_ns, status.st_size, status.st_dev, status.st_ino, fingerprint(),
    ]  # fmt: skip
    kept = _kept(cache_dir, path) if cache_dir else None
    if kept is not None and kept.get("key") == key:
        return {group: _tuples(values) for group, values in kept["values"].items()}

    from kata.config.parse import parse

    values = parse(_all(fd, status.st_size), path)
    if cache_dir:
        _keep(cache_dir, path, {"key": key, "values": values}, status.st_mtime_ns)
    return values


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
