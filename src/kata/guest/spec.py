"""Reading the parts of an OCI configuration that the guest acts on; pure.

The host has checked the configuration (``kata.oci``); here only what is used is looked at.
"""

from __future__ import annotations

from kata.errors import CommandNotFound, InvalidInput
from kata.wire.agent_api import SANDBOX_NETWORK
from kata.wire.quickjson import loads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TypeAlias

    from kata.wire.agent_api import Seccomp

    Spec: TypeAlias = dict[str, Any]

MALFORMED = (KeyError, TypeError, ValueError, AttributeError, IndexError)
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def document(text: bytes, what: str) -> Spec:
    """A JSON object. Raises ``InvalidInput``."""
    try:
        value = loads(text)
    except (ValueError, ImportError) as error:
        raise InvalidInput(f"{what} is not JSON", why=str(error)) from None
    if not isinstance(value, dict):
        raise InvalidInput(f"{what} is not a JSON object")
    return value


def filter_of(seccomp: Seccomp | None) -> tuple[bytes, int]:
    """A filter and its flags; empty if there is none. Raises ``InvalidInput``."""
    if seccomp is None:
        return b"", 0
    if len(seccomp.bpf) % 8 or not 0 < len(seccomp.bpf) <= 4096 * 8:
        raise InvalidInput("the seccomp filter is malformed", why=f"{len(seccomp.bpf)} bytes")
    return seccomp.bpf, seccomp.flags


def namespaces(spec: Spec) -> dict[str, str]:
    """The container's namespaces: kind -> path of the one to join, "" for a new one."""
    listed = (spec.get("linux") or {}).get("namespaces") or []
    return {entry["type"]: entry.get("path") or "" for entry in listed}


def in_shared_network(spec: Spec) -> Spec:
    """The same for a child that is in the sandbox's network already: it need not be entered."""
    linux = spec.get("linux") or {}
    listed = [
        {**entry, "path": ""} if entry.get("path") == SANDBOX_NETWORK else entry
        for entry in linux.get("namespaces") or []
    ]
    return {**spec, "linux": {**linux, "namespaces": listed}}


def root_part(spec: Spec) -> Spec:
    """What of a specification is settled when its root is made, kernel parameters included."""
    linux = spec.get("linux") or {}
    names = ("maskedPaths", "readonlyPaths", "rootfsPropagation", "devices", "namespaces")
    part: Spec = {name: linux.get(name) or [] for name in names}
    part["sysctl"] = linux.get("sysctl") or {}
    return {**part, "root": spec["root"], "mounts": spec.get("mounts") or []}


def bounding_set(spec: Spec) -> list[str]:
    """The capabilities the container's processes may ever have."""
    sets = (spec.get("process") or {}).get("capabilities") or {}
    return sets.get("bounding") or []


def environment(process: Spec) -> dict[str, str]:
    """The environment; of a name that is there twice the last one holds."""
    found: dict[str, str] = {}
    for entry in process.get("env") or []:
        name, equals, value = entry.partition("=")
        if not name or not equals or "\0" in entry:
            raise InvalidInput(f'not an environment variable: "{entry}"')
        found[name] = value
    return found


def arguments(process: Spec) -> list[str]:
    """The argument vector. Raises ``InvalidInput`` when it is empty."""
    args: list[str] = process.get("args") or []
    if not args or any("\0" in arg for arg in args):
        raise InvalidInput("process.args is empty or holds a zero byte")
    if not args[0]:
        raise CommandNotFound('exec: "": executable file not found in $PATH')
    return args


def identifier(value: str, what: str) -> str:
    """A name used as key and in messages, bounded. Raises ``InvalidInput``."""
    if not value or len(value) > 255 or "/" in value or not value.isprintable():
        raise InvalidInput(f'not a valid {what}: "{value[:64]}"')
    return value
