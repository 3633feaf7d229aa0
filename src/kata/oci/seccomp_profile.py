"""A seccomp profile, Docker's or OCI's, to the ``linux.seccomp`` of one container.

The one rule: Docker's conditions are decided here, by the container's bounding capabilities, the
architecture and the kernel that will run it, which is the guest's and not the host's.
Source: https://pkg.go.dev/github.com/moby/profiles/seccomp (``setupSeccomp``).
"""

from __future__ import annotations

from kata.errors import InvalidInput, InvalidSpec, Unsupported
from kata.oci.kinds import array, integer, matching, one_of, string, strings, table, uint32, uint64
from kata.oci.schema import ACTIONS, ARCHITECTURES, FLAGS, OPERATORS
from kata.wire.quickjson import loads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection
    from typing import Any

_NATIVE = {"amd64": "SCMP_ARCH_X86_64", "arm64": "SCMP_ARCH_AARCH64"}
_NOTIFY = "SCMP_ACT_NOTIFY"


def _version(text: str) -> bool:
    parts = text.split(".")
    return len(parts) == 2 and all(p.isdecimal() for p in parts) and text.strip("0.") != ""


_filter = table({
    "caps": strings, "arches": strings,
    "minKernel": matching('a kernel version such as "4.8"', lambda t: not t or _version(t)),
})  # fmt: skip
_arch = one_of(*ARCHITECTURES)
_argument = table(
    {"index": integer(0, 5), "value": uint64, "valueTwo": uint64, "op": one_of(*OPERATORS)},
    "index", "op",
)  # fmt: skip
_PROFILE = table({
    "defaultAction": one_of(*ACTIONS), "defaultErrnoRet": uint32, "flags": array(one_of(*FLAGS)),
    "listenerPath": string, "listenerMetadata": string, "architectures": array(_arch),
    "archMap": array(table(
        {"architecture": _arch, "subArchitectures": array(_arch)}, "architecture"
    )),
    "syscalls": array(table(
        {
            "names": strings, "name": string, "action": one_of(*ACTIONS), "errnoRet": uint32,
            "args": array(_argument), "includes": _filter, "excludes": _filter,
        },
        "action",
    )),
})  # fmt: skip


def parse(text: str | bytes, source: str) -> dict[str, Any]:
    """A profile's document, shape checked. Raises ``InvalidInput`` that names ``source``."""
    what = f'seccomp profile "{source}"'
    try:
        profile = loads(text)
    except ValueError as error:
        raise InvalidInput(what, why=f"not JSON: {error}") from None
    faults: list[InvalidSpec] = []
    _PROFILE(profile, "", faults)
    for fault in faults:
        raise InvalidInput(f"{what}: {fault.path}" if fault.path else what, why=fault.why)
    if profile.get("architectures") and profile.get("archMap"):
        raise InvalidInput(what, why='both "architectures" and "archMap" are specified')
    for index, rule in enumerate(profile.get("syscalls") or ()):
        if rule.get("name") and rule.get("names"):
            raise InvalidInput(
                f"{what}: syscalls[{index}]", why='both "name" and "names" are there'
            )
    return dict(profile)


def resolved(
    profile: dict[str, Any], capabilities: Collection[str], *, kernel: tuple[int, int],
    architecture: str = "amd64",
) -> dict[str, Any] | None:  # fmt: skip
    """OCI's ``linux.seccomp`` for a container with these bounding capabilities.

    None if the profile says nothing at all, which means no filter. Raises ``Unsupported`` for one
    that wants a listener.
    """
    rules = profile.get("syscalls") or []
    if not profile.get("defaultAction") and not rules:
        return None
    out = {
        name: profile[name]
        for name in ("defaultAction", "defaultErrnoRet", "flags", "architectures")
        if profile.get(name) is not None
    }
    for entry in profile.get("archMap") or ():
        if entry["architecture"] == _NATIVE[architecture]:
            out["architectures"] = [entry["architecture"], *(entry.get("subArchitectures") or ())]
    world = (architecture, frozenset(capabilities), kernel)
    out["syscalls"] = [_rule(r) for r in rules if _applies(r, *world)]
    refuse_listener(profile, out)
    return out


def refuse_listener(profile: dict[str, Any], seccomp: dict[str, Any]) -> None:
    """Raise ``Unsupported`` for a filter that asks another process for its decisions."""
    actions = {rule["action"] for rule in seccomp.get("syscalls") or ()}
    if _NOTIFY in actions or seccomp.get("defaultAction") == _NOTIFY or profile.get("listenerPath"):
        raise Unsupported(
            f"seccomp action {_NOTIFY}",
            why="a listener on the host cannot decide for a process in the guest",
            hint="use SCMP_ACT_ERRNO",
        )


def kernel_version(release: str) -> tuple[int, int]:
    """The first two numbers of a kernel release. Raises ``InvalidInput`` if it has none."""
    numbers = []
    for part in release.split(".")[:2]:
        digits = part[: len(part) - len(part.lstrip("0123456789"))]
        if not digits:
            break
        numbers.append(int(digits))
    if len(numbers) != 2:
        raise InvalidInput(f'kernel release "{release}"', why="does not begin with two numbers")
    return numbers[0], numbers[1]


def _rule(rule: dict[str, Any]) -> dict[str, Any]:
    out: dict[str, Any] = {
        "names": rule.get("names") or [rule.get("name") or ""],
        "action": rule["action"],
    }
    if rule.get("errnoRet") is not None:
        out["errnoRet"] = rule["errnoRet"]
    if rule.get("args"):
        out["args"] = [{**a, "value": a.get("value") or 0} for a in rule["args"]]
    return out


def _applies(
    rule: dict[str, Any], architecture: str, capabilities: frozenset[str], kernel: tuple[int, int]
) -> bool:
    excludes, includes = rule.get("excludes") or {}, rule.get("includes") or {}
    if architecture in (excludes.get("arches") or ()):
        return False
    if capabilities.intersection(excludes.get("caps") or ()):
        return False
    if excludes.get("minKernel") and kernel >= kernel_version(excludes["minKernel"]):
        return False
    if includes.get("arches") and architecture not in includes["arches"]:
        return False
    if not capabilities.issuperset(includes.get("caps") or ()):
        return False
    return not includes.get("minKernel") or kernel >= kernel_version(includes["minKernel"])
