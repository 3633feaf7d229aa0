"""config.json: parsed, checked, and kept as the dictionary it is.

The one rule: whatever passes here needs no further look at its types; fields that are not known
stay where they are, for the specification wants them ignored and engines want them back.
"""

from __future__ import annotations

from kata.errors import InvalidSpec
from kata.oci.schema import CONFIG, PROCESS, RESOURCES
from kata.wire.quickjson import loads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TypeAlias

    Spec: TypeAlias = dict[str, Any]

_LIMIT = 16 << 20  # bytes; a configuration of this size is a mistake or an attack


def parse(text: str | bytes) -> Spec:
    """The configuration in a config.json. Raises ``InvalidSpec`` for its first fault."""
    spec: Spec = _document(text)
    for fault in faults(spec):
        raise fault
    return spec


def parse_process(text: str | bytes) -> Spec:
    """OCI's process object, as ``exec --process`` is given. Raises ``InvalidSpec``."""
    process: Spec = _document(text)
    for fault in (*_shape(PROCESS, process, "process"), *_process_faults(process)):
        raise fault
    return process


def parse_resources(text: str | bytes) -> Spec:
    """OCI's linux.resources, as ``update --resources`` is given. Raises ``InvalidSpec``."""
    resources: Spec = _document(text)
    for fault in _shape(RESOURCES, resources, "linux.resources"):
        raise fault
    return resources


def faults(spec: Any) -> list[InvalidSpec]:
    """Everything wrong with a configuration; those of shape alone, if there are any."""
    return _shape(CONFIG, spec, "") or _sense(spec)


def namespaces(spec: Spec) -> dict[str, str]:
    """The namespaces of a container: kind to path, which is empty for a new one."""
    listed = (spec.get("linux") or {}).get("namespaces") or []
    return {n["type"]: n.get("path") or "" for n in listed}


def _document(text: str | bytes) -> Any:
    if len(text) > _LIMIT:
        raise InvalidSpec("(document)", f"is larger than {_LIMIT} bytes")
    try:
        document = loads(text)
    except ValueError as error:
        raise InvalidSpec("(document)", f"is not JSON: {error}") from None
    half = b"\\ud" if isinstance(text, bytes) else "\\ud"
    return _whole(document) if half in text.lower() else document  # type: ignore[operator]


def _whole(value: Any) -> Any:
    """The value with halves of characters replaced, as Go reads them."""
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, list):
        return [_whole(item) for item in value]
    if isinstance(value, dict):
        return {_whole(key): _whole(item) for key, item in value.items()}
    return value


def _shape(kind: Any, value: Any, path: str) -> list[InvalidSpec]:
    found: list[InvalidSpec] = []
    kind(value, path, found)
    for fault in found:
        if not fault.path:
            return [InvalidSpec("(document)", fault.why)]
    return found


def _sense(spec: Spec) -> list[InvalidSpec]:
    found = [*_version_faults(spec["ociVersion"])]
    if not spec.get("root"):
        found.append(InvalidSpec("root", "is missing"))
    if not spec.get("process"):
        found.append(InvalidSpec("process", "is missing"))
    else:
        found += _process_faults(spec["process"])
    return found + _namespace_faults(spec) + _device_faults(spec)


def _version_faults(version: str) -> list[InvalidSpec]:
    numbers = version.partition("-")[0].partition("+")[0].split(".")
    if len(numbers) != 3 or not all(n.isdecimal() for n in numbers):
        return [InvalidSpec("ociVersion", f'must be a semantic version, not "{version}"')]
    if int(numbers[0]) > 1:
        return [InvalidSpec("ociVersion", f'version {version} is not known, only "1.*" are')]
    return []


def _process_faults(process: Spec) -> list[InvalidSpec]:
    found = []
    if not process.get("args"):
        found.append(InvalidSpec("process.args", "must name a program"))
    seen: set[str] = set()
    for index, limit in enumerate(process.get("rlimits") or ()):
        path = f"process.rlimits[{index}]"
        if limit["type"] in seen:
            found.append(InvalidSpec(path, f'"{limit["type"]}" is there twice'))
        seen.add(limit["type"])
        if limit["soft"] > limit["hard"]:
            found.append(InvalidSpec(f"{path}.soft", "must not be above the hard limit"))
    for index, entry in enumerate(process.get("env") or ()):
        if entry.startswith("=") or "=" not in entry:
            found.append(InvalidSpec(f"process.env[{index}]", f'must be NAME=VALUE, not "{entry}"'))
    return found


def _namespace_faults(spec: Spec) -> list[InvalidSpec]:
    linux = spec.get("linux") or {}
    found = []
    kinds: set[str] = set()
    for index, space in enumerate(linux.get("namespaces") or ()):
        path = f"linux.namespaces[{index}]"
        if space["type"] in kinds:
            found.append(InvalidSpec(path, f'"{space["type"]}" is there twice'))
        kinds.add(space["type"])
        if space.get("path") and not space["path"].startswith("/"):
            found.append(InvalidSpec(f"{path}.path", "must be an absolute path"))
    for (where, name), kind in _NEEDS.items():
        if (linux if where else spec).get(name) and kind not in kinds:
            found.append(InvalidSpec(where + name, f'needs a namespace of type "{kind}"'))
    return found + _sysctl_faults(linux.get("sysctl") or {}, kinds)


_NEEDS = {
    ("", "hostname"): "uts", ("", "domainname"): "uts",
    ("linux.", "maskedPaths"): "mount", ("linux.", "readonlyPaths"): "mount",
    ("linux.", "uidMappings"): "user", ("linux.", "gidMappings"): "user",
    ("linux.", "timeOffsets"): "time",
}  # fmt: skip
_IPC_SYSCTLS = frozenset((
    "kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.sem", "kernel.shmall",
    "kernel.shmmax", "kernel.shmmni", "kernel.shm_rmid_forced",
))  # fmt: skip


def _sysctl_faults(sysctls: dict[str, str], kinds: set[str]) -> list[InvalidSpec]:
    """Only what belongs to a namespace of the container may be set (as runc has it)."""
    found = []
    for name in sysctls:
        dotted = name.replace("/", ".")
        kind = ""
        if dotted in _IPC_SYSCTLS or dotted.startswith("fs.mqueue."):
            kind = "ipc"
        elif dotted.startswith("net."):
            kind = "network"
        elif dotted in ("kernel.domainname", "kernel.hostname"):
            kind = "uts"
        path = f'linux.sysctl["{name}"]'
        if ".." in f".{dotted}.":
            found.append(InvalidSpec(path, "is no name of a kernel parameter"))
        elif not kind:
            found.append(InvalidSpec(path, "is not in a namespace of its own"))
        elif kind not in kinds:
            found.append(InvalidSpec(path, f'needs a namespace of type "{kind}"'))
    return found


def _device_faults(spec: Spec) -> list[InvalidSpec]:
    return [
        InvalidSpec(f"linux.devices[{index}]", f'a device of type "{d["type"]}" needs numbers')
        for index, d in enumerate((spec.get("linux") or {}).get("devices") or ())
        if d["type"] != "p" and (d.get("major") is None or d.get("minor") is None)
    ]
