"""Values of command line options, in Docker's syntax, to plain values.

The one rule: pure; text in, value out, and ``InvalidInput`` that names the option's value and the
rule it breaks. Relative paths are resolved against a directory the caller gives.
"""

from __future__ import annotations

from kata.errors import InvalidInput
from kata.wire.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

_UNITS = {"": 0, "b": 0, "k": 10, "m": 20, "g": 30, "t": 40, "p": 50}
RLIMITS = (
    "core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice", "nofile", "nproc",
    "rss", "rtprio", "rttime", "sigpending", "stack",
)  # fmt: skip
UNLIMITED = (1 << 64) - 1
_PROPAGATION = frozenset(p + q for p in ("", "r") for q in ("private", "shared", "slave"))
_IGNORED = frozenset(("z", "Z", "nocopy", "consistent", "cached", "delegated"))
_TMPFS_VALUES = frozenset(("size", "mode", "uid", "gid", "nr_inodes", "nr_blocks", "mpol"))
_TMPFS_FLAGS = {
    "exec": "noexec", "suid": "nosuid", "dev": "nodev", "rw": "ro", "atime": "noatime",
    "diratime": "nodiratime", "relatime": "norelatime", "strictatime": "nostrictatime",
    "async": "sync",
}  # fmt: skip


@record
class Volume:
    """A directory or file of the host at a place in the container."""

    source: str
    destination: str
    readonly: bool = False
    propagation: str = "rprivate"


@record
class Tmpfs:
    """A file system in memory at a place in the container; ``options`` as for mount(8)."""

    destination: str
    options: tuple[str, ...] = ()


@record
class Rlimit:
    """A resource limit; ``name`` as in ulimits (``nofile``)."""

    name: str
    soft: int
    hard: int


@record
class Security:
    """What ``--security-opt`` asks; ``seccomp``: empty (default), ``unconfined``, or a file."""

    seccomp: str = ""
    no_new_privileges: bool = False


def size(text: str) -> int:
    """Bytes: ``512m``, ``1g``, ``1.5GiB``, ``4096``; units are powers of 1024."""
    lower = text.strip().lower()
    number = lower.rstrip("bikmgtp ")
    unit = lower[len(number) :].strip()
    for suffix in ("ib", "b"):
        if len(unit) > len(suffix) and unit.endswith(suffix):
            unit = unit.removesuffix(suffix)
            break
    if unit not in _UNITS or not _decimal(number):
        raise InvalidInput(f'invalid size: "{text}"', why="must be a number and one of b, k, m, g")
    value = int(float(number) * (1 << _UNITS[unit])) if "." in number else int(number)
    return value if "." in number else value << _UNITS[unit]


def _decimal(text: str) -> bool:
    whole, dot, fraction = text.partition(".")
    return (
        text.isascii() and whole.isdecimal() and (fraction.isdecimal() if dot else True)
    ) and len(text) < 24


def cpus(text: str) -> int:
    """Processors in billionths: ``1.5`` is 1500000000."""
    if not _decimal(text) or float(text) < 0.01:
        raise InvalidInput(f'invalid number of cpus: "{text}"', why="must be at least 0.01")
    return int(float(text) * 1_000_000_000 + 0.5)


def ulimit(text: str) -> Rlimit:
    """``NAME=SOFT[:HARD]``; -1 is unlimited."""
    name, equals, value = text.partition("=")
    if not equals or not value:
        raise InvalidInput(f'invalid ulimit: "{text}"', why="must be NAME=SOFT[:HARD]")
    if name not in RLIMITS:
        raise InvalidInput(
            f'invalid ulimit: "{text}"', why=f'there is no "{name}"',
            hint="there are " + ", ".join(RLIMITS),
        )  # fmt: skip
    soft_text, colon, hard_text = value.partition(":")
    soft = _limit(text, soft_text)
    hard = _limit(text, hard_text) if colon else soft
    if soft > hard:
        raise InvalidInput(
            f'invalid ulimit: "{text}"',
            why=f"ulimit soft limit must be less than or equal to hard limit: {soft} > {hard}",
        )
    return Rlimit(name, soft, hard)


def _limit(whole: str, text: str) -> int:
    if text == "-1":
        return UNLIMITED
    if text.isascii() and text.isdecimal() and int(text) <= UNLIMITED:
        return int(text)
    raise InvalidInput(f'invalid ulimit: "{whole}"', why=f'"{text}" is no number')


def volume(text: str, directory: str) -> Volume:
    """``SOURCE:DESTINATION[:OPTION,…]``; a source such as ``./x`` is taken from ``directory``."""
    parts = text.split(":")
    if len(parts) not in (2, 3) or not all(parts):
        raise InvalidInput(
            f'invalid volume: "{text}"', why="must be SOURCE:DESTINATION[:OPTIONS]",
            hint='for example "/srv/data:/data:ro"',
        )  # fmt: skip
    source, destination = parts[:2]
    if source in (".", "..") or source.startswith(("./", "../")):
        source = f"{directory}/{source}"
    if not source.startswith("/"):
        raise InvalidInput(
            f'invalid volume: "{text}"',
            why="the source is no path, and there are no named volumes",
            hint=f'"./{source}" is the one in this directory',
        )  # fmt: skip
    readonly, propagation = _volume_options(text, parts[2] if len(parts) == 3 else "")
    return Volume(_normal(source), _target("volume", text, destination), readonly, propagation)


def _volume_options(text: str, options: str) -> tuple[bool, str]:
    given = options.split(",") if options else []
    access = [o for o in given if o in ("ro", "rw")]
    propagation = [o for o in given if o in _PROPAGATION]
    unknown = [o for o in given if o not in ("ro", "rw") and o not in _PROPAGATION | _IGNORED]
    if unknown:
        raise InvalidInput(f'invalid volume: "{text}"', why=f'unknown option "{unknown[0]}"')
    if len(access) > 1 or len(propagation) > 1:
        raise InvalidInput(f'invalid volume: "{text}"', why="options contradict each other")
    return "ro" in access, (propagation or ["rprivate"])[0]


def _normal(path: str) -> str:
    from os.path import normpath

    return "/" + normpath(path).lstrip("/")


def _target(what: str, text: str, destination: str) -> str:
    if not destination.startswith("/"):
        raise InvalidInput(
            f'invalid {what}: "{text}"', why=f'the destination must be absolute: "{destination}"'
        )
    path = _normal(destination)
    if path == "/":
        raise InvalidInput(f'invalid {what}: "{text}"', why="the destination cannot be /")
    return path


def tmpfs(text: str) -> Tmpfs:
    """``DESTINATION[:OPTION,…]``, for example ``/run:size=64m,mode=1777``."""
    destination, _, options = text.partition(":")
    return Tmpfs(_target("tmpfs", text, destination), merge_tmpfs(options, text))


def merge_tmpfs(options: str, text: str = "") -> tuple[str, ...]:
    """Docker's options of a tmpfs with given ones over them: the later wins."""
    merged: dict[str, str] = {o: o for o in ("noexec", "nosuid", "nodev", "rprivate")}
    opposite = {**_TMPFS_FLAGS, **{v: k for k, v in _TMPFS_FLAGS.items()}}
    for option in options.split(",") if options else ():
        name, equals, value = option.partition("=")
        if equals:
            if name not in _TMPFS_VALUES or not value:
                raise InvalidInput(f'invalid tmpfs: "{text}"', why=f'unknown option "{option}"')
            merged.pop(name, None)
            merged[name] = (
                f"{name}={size(value) if name == 'size' and value[-1:] != '%' else value}"
            )
        elif name in opposite:
            merged.pop(opposite[name], None)
            merged[name] = name
        elif name in _PROPAGATION:
            merged = {k: v for k, v in merged.items() if k not in _PROPAGATION}
            merged[name] = name
        else:
            raise InvalidInput(f'invalid tmpfs: "{text}"', why=f'unknown option "{option}"')
    return tuple(merged.values())


def _tmpfs_value(name: str, value: str) -> str:
    return str(size(value)) if name == "size" and not value.endswith("%") else value


def environment(given: tuple[str, ...], environ: Mapping[str, str]) -> tuple[str, ...]:
    """``--env`` values: ``NAME=VALUE``, or ``NAME`` to take it from the caller's environment.

    A name the caller does not have stays alone: it removes the variable (as Docker has it).
    """
    out = []
    for entry in given:
        name, equals, _ = entry.partition("=")
        if not name or "\0" in entry:
            raise InvalidInput(f'invalid environment variable: "{entry}"', why="it has no name")
        out.append(entry if equals or name not in environ else f"{name}={environ[name]}")
    return tuple(out)


def env_file(data: bytes, path: str, environ: Mapping[str, str]) -> tuple[str, ...]:
    """The variables of an environment file, by Docker's rules.

    Leading white space, empty lines and lines that begin with ``#`` are skipped; values are taken
    as they are, quotes and all; a bare name takes its value from the environment, or is left out.
    """
    out = []
    for number, raw in enumerate(data.split(b"\n"), 1):
        where = f'invalid env file "{path}"'
        try:
            line = raw.removesuffix(b"\r").decode("utf-8")
        except UnicodeDecodeError:
            raise InvalidInput(where, why=f"invalid utf8 bytes at line {number}") from None
        line = (line.removeprefix("\ufeff") if number == 1 else line).lstrip()
        if not line or line.startswith("#"):
            continue
        name, equals, _ = line.partition("=")
        if not name:
            raise InvalidInput(where, why=f'no variable name on line "{line}"')
        if " " in name or "\t" in name or "\0" in line:
            raise InvalidInput(where, why=f'variable "{name}" contains whitespaces')
        if equals:
            out.append(line)
        elif name in environ:
            out.append(f"{name}={environ[name]}")
    return tuple(out)


def sysctl(text: str) -> tuple[str, str]:
    """``NAME=VALUE`` of a kernel parameter."""
    name, equals, value = text.partition("=")
    if not name or not equals or not value:
        raise InvalidInput(f'invalid sysctl: "{text}"', why="must be NAME=VALUE")
    return name.strip(), value.strip()


def security(given: tuple[str, ...], directory: str) -> Security:
    """``--security-opt`` values: ``seccomp=unconfined|FILE``, ``no-new-privileges[=BOOL]``.

    A relative FILE is taken from ``directory``.
    """
    seccomp, no_new_privileges = "", False
    for text in given:
        mark = "=" if "=" in text else ":"
        name, _, value = text.partition(mark)
        if name == "no-new-privileges" and value in ("", "true", "false"):
            no_new_privileges = value != "false"
        elif name == "seccomp" and value:
            seccomp = "" if value in ("builtin", "default") else value
            if seccomp not in ("", "unconfined") and not seccomp.startswith("/"):
                seccomp = _normal(f"{directory}/{seccomp}")
        elif (name, value) in (("apparmor", "unconfined"), ("label", "disable")):
            continue  # neither exists in the guest
        else:
            raise InvalidInput(
                f'invalid security option: "{text}"', why="not known",
                hint='there are "seccomp=unconfined", "seccomp=FILE" and "no-new-privileges"',
            )  # fmt: skip
    return Security(seccomp, no_new_privileges)
