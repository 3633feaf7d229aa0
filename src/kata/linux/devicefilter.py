"""Which devices a control group may use: OCI's rules as a BPF program, and attaching it.

``compile_rules`` is pure. The last rule that matches decides, as in runtime-spec config-linux.md;
what every container may use (runc's list) comes after the rules, and nothing else is allowed.
Source: linux/bpf.h, ``struct bpf_cgroup_dev_ctx``.
"""

from __future__ import annotations

import os

from kata.errors import InvalidInput
from kata.linux import bpf
from kata.linux.bpf import op as _op

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

_TYPES = {"a": 0, "b": 1, "c": 2, "u": 2}
_ACCESS = {"m": 1, "r": 2, "w": 4}
_ALL = 7
_ANY = -1
# (type, major, minor, access): nodes of any kind may be made; these may be opened (runc)
_ALLOWED = (
    (2, _ANY, _ANY, 1), (1, _ANY, _ANY, 1), (2, 1, 3, _ALL), (2, 1, 8, _ALL), (2, 1, 7, _ALL),
    (2, 5, 0, _ALL), (2, 1, 5, _ALL), (2, 1, 9, _ALL), (2, 136, _ANY, _ALL), (2, 5, 2, _ALL),
)  # fmt: skip
_DENY_ALL = (False, 0, _ANY, _ANY, _ALL)
_MAX_RULES = 1024
_TYPE_CGROUP_DEVICE, _ATTACH_CGROUP_DEVICE = 15, 6
_WHAT = "the device filter"


def compile_rules(rules: Sequence[Mapping[str, Any]]) -> bytes:
    """The program for OCI's linux.resources.devices. Raises ``InvalidInput``."""
    if len(rules) > _MAX_RULES:
        raise InvalidInput(f"{len(rules)} device rules, the limit is {_MAX_RULES}")
    code = [
        _op(0x61, 2, 1, 0), _op(0x54, 2, 0, 0, 0xFFFF),  # r2 = type
        _op(0x61, 3, 1, 0), _op(0x74, 3, 0, 0, 16),  # r3 = access
        _op(0x61, 4, 1, 4), _op(0x61, 5, 1, 8),  # r4 = major, r5 = minor
    ]  # fmt: skip
    for kind, major, minor, access in reversed(_ALLOWED):
        code += _rule(kind, major, minor, access, allow=True)
    wanted = [_parsed(rule) for rule in rules]
    if wanted and wanted[0] == _DENY_ALL:
        del wanted[0]  # that is where we start from
    for allow, kind, major, minor, access in reversed(wanted):
        if allow and _granted(kind, major, minor, access):
            continue
        code += _rule(kind, major, minor, access, allow=allow)
        if not kind and major < 0 and minor < 0 and access == _ALL:
            return b"".join(code)  # nothing gets past it, and the kernel wants no dead code
    return b"".join((*code, *_verdict(allow=False)))


def _granted(kind: int, major: int, minor: int, access: int) -> bool:
    """Whether this is allowed to every container anyway."""
    return any(
        kind == k and major == a and i in (_ANY, minor) and not access & ~granted
        for k, a, i, granted in _ALLOWED
    )


def _parsed(rule: Mapping[str, Any]) -> tuple[bool, int, int, int, int]:
    try:
        kind = _TYPES[rule.get("type") or "a"]
        # letters that are none are passed over, as by runc
        access = sum(_ACCESS.get(letter, 0) for letter in set(rule.get("access") or "rwm"))
    except (KeyError, TypeError):
        raise InvalidInput(f"linux.resources.devices: malformed rule {rule!r:.200}") from None
    major, minor = (_ANY if rule.get(n) is None else int(rule[n]) for n in ("major", "minor"))
    return bool(rule.get("allow")), kind, major, minor, access


def _rule(kind: int, major: int, minor: int, access: int, *, allow: bool) -> list[bytes]:
    """Instructions that decide if the rule matches, and else fall through."""
    tests: list[tuple[int, ...]] = []  # register, value: another value does not match
    if kind:
        tests.append((2, kind))
    for register, number in ((4, major), (5, minor)):
        if number >= 0:
            tests.append((register, number))
    body: list[bytes] = list(_verdict(allow=allow))
    if access != _ALL:  # all that is wanted must be in the rule
        body = [
            _op(0xBC, 1, 3), _op(0x54, 1, 0, 0, access), _op(0x5D, 1, 3, len(body)), *body,
        ]  # fmt: skip
    for register, value in reversed(tests):
        body = [_op(0x55, register, 0, len(body), value), *body]
    return body


def _verdict(*, allow: bool) -> tuple[bytes, bytes]:
    return _op(0xB7, 0, 0, 0, int(allow)), _op(0x95)


def attach(group: str, program: bytes, replaces: int = -1) -> int:
    """Attach a program to a control group's directory; a descriptor of the program.

    ``replaces`` is the descriptor of one attached before, which is detached after that.
    """
    fd = bpf.load(_TYPE_CGROUP_DEVICE, program, what=_WHAT)
    try:
        bpf.attach(group, fd, _ATTACH_CGROUP_DEVICE, replaces=replaces, what=_WHAT)
    except OSError:
        os.close(fd)
        raise
    return fd
