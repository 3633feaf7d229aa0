"""config.json: parsed, checked, and kept as the dictionary it is.

The one rule: whatever passes here needs no further look at its types; fields that are not known
stay where they are, for the specification wants them ignored and engines want them back. What
runc reads in another way than it is written is settled here, once (``_settle``).
"""

from __future__ import annotations

from kata.errors import InvalidSpec
from kata.oci.schema import CONFIG, PROCESS, RESOURCES
from kata.wire.quickjson import loads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeAlias

    Spec: TypeAlias = dict[str, Any]

_LIMIT = 16 << 20  # bytes; a configuration of this size is a mistake or an attack
LEAST_MEMORY = 1 << 20  # bytes; below it the kernel ends the guest's process before it is one
_LEAST_PERIOD, _MOST_PERIOD = 1000, 1000000  # microseconds; kernel/sched/core.c


def parse(text: str | bytes) -> Spec:
    """The configuration in a config.json. Raises ``InvalidSpec`` for its first fault."""
    spec: Spec = _document(text)
    for fault in faults(spec):
        raise fault
    _settle(spec)
    return spec


def parse_process(text: str | bytes, name: str) -> Spec:
    """OCI's process object, as ``exec --process`` is given in the file ``name``.

    Raises ``InvalidSpec`` that names the file, and what is wrong by its path in it.
    """
    process = _part(text, name, lambda v: _shape(PROCESS, v, "") or _process_faults(v, ""))
    _settle_process(process)
    return process


def parse_resources(text: str | bytes, name: str) -> Spec:
    """OCI's linux.resources, as ``update --resources`` is given; raises as ``parse_process``.

    As with runc null asks for nothing.
    """
    if text.strip() in (b"null", "null"):
        return {}
    return _part(text, name, lambda v: _shape(RESOURCES, v, "") or _resource_faults(v, ""))


def _part(text: str | bytes, name: str, check: Callable[[Any], list[InvalidSpec]]) -> Spec:
    try:
        part: Spec = _document(text)
        for fault in check(part):
            raise fault
    except InvalidSpec as fault:
        raise InvalidSpec(fault.path, fault.why, document=f'"{name}"') from None
    return part


def faults(spec: Any) -> list[InvalidSpec]:
    """Everything wrong with a configuration; those of shape alone, if there are any."""
    return _shape(CONFIG, spec, "") or _sense(spec)


def namespaces(spec: Spec) -> dict[str, str]:
    """The namespaces of a container: kind to path, which is empty for a new one."""
    listed = (spec.get("linux") or {}).get("namespaces") or []
    return {n["type"]: n.get("path") or "" for n in listed}


def _settle(spec: Spec) -> None:
    """Read as runc does: relative paths begin at the root, what needs a namespace goes without."""
    _settle_process(spec["process"])
    linux = spec.get("linux") or {}
    for where, entries in (
        ("destination", spec.get("mounts")), ("path", linux.get("devices")),
    ):  # fmt: skip
        for entry in entries or ():
            if not entry[where].startswith("/"):
                entry[where] = f"/{entry[where]}"
    kinds = namespaces(spec)
    for name, kind in _WITHOUT.items():
        if kind not in kinds:
            linux.pop(name, None)


def _settle_process(process: Spec) -> None:
    """Of the size of a terminal the kernel has 16 bits; what is missing is 0."""
    size = process.get("consoleSize")
    if size is not None:
        for name in ("height", "width"):
            size[name] = (size.get(name) or 0) & 0xFFFF


_WITHOUT = {"uidMappings": "user", "gidMappings": "user", "timeOffsets": "time"}


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
    """What fields mean together; a version that is none is passed over, as runc does."""
    found = []
    if not spec.get("root"):
        found.append(InvalidSpec("root", "is missing"))
    if not spec.get("process"):
        found.append(InvalidSpec("process", "is missing"))
    else:
        found += _process_faults(spec["process"], "process.")
    linux = spec.get("linux") or {}
    found += _resource_faults(linux.get("resources") or {}, "linux.resources.")
    return found + _namespace_faults(spec) + _filter_faults(linux.get("seccomp") or {})


def _process_faults(process: Spec, above: str) -> list[InvalidSpec]:
    found = []
    if not process.get("args"):
        found.append(InvalidSpec(f"{above}args", "must name a program"))
    for index, limit in enumerate(process.get("rlimits") or ()):
        if limit["soft"] > limit["hard"]:
            path = f"{above}rlimits[{index}].soft"
            found.append(InvalidSpec(path, "must not be above the hard limit"))
    for index, entry in enumerate(process.get("env") or ()):
        if entry.startswith("=") or "=" not in entry:
            path = f"{above}env[{index}]"
            found.append(InvalidSpec(path, f'must be NAME=VALUE, not "{entry}"'))
    return found


def _resource_faults(resources: Spec, above: str) -> list[InvalidSpec]:
    """Limits that the kernel refuses, or under which nothing runs."""
    found = []
    limit = (resources.get("memory") or {}).get("limit") or 0
    if 0 < limit < LEAST_MEMORY:
        why = f"unable to set memory limit to {limit}: a container needs {LEAST_MEMORY} bytes"
        found.append(InvalidSpec(f"{above}memory.limit", why))
    cpu = resources.get("cpu") or {}
    period, quota = cpu.get("period") or 0, cpu.get("quota") or 0
    if period and not _LEAST_PERIOD <= period <= _MOST_PERIOD:
        why = f"must be from {_LEAST_PERIOD} to {_MOST_PERIOD} microseconds, not {period}"
        found.append(InvalidSpec(f"{above}cpu.period", why))
    if 0 < quota < _LEAST_PERIOD:
        why = f"must be at least {_LEAST_PERIOD} microseconds, not {quota}"
        found.append(InvalidSpec(f"{above}cpu.quota", why))
    return found


def _filter_faults(seccomp: Spec) -> list[InvalidSpec]:
    """A filter that says nothing is none, as runc has it; one with rules needs the rest."""
    if seccomp.get("defaultAction") or not seccomp.get("syscalls"):
        return []
    return [InvalidSpec("linux.seccomp.defaultAction", "is missing")]


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
        if dotted == "kernel.hostname":
            found.append(InvalidSpec(path, 'is not allowed, as "hostname" is there for it'))
        elif ".." in f".{dotted}.":
            found.append(InvalidSpec(path, "is no name of a kernel parameter"))
        elif not kind:
            found.append(InvalidSpec(path, "is not in a namespace of its own"))
        elif kind not in kinds:
            found.append(InvalidSpec(path, f'needs a namespace of type "{kind}"'))
    return found
