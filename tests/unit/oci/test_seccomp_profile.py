"""Docker's seccomp profiles, resolved for one container."""

import json
import os

import pytest

import kata.oci
from kata.errors import InvalidInput, Unsupported
from kata.oci import schema
from kata.oci.defaults import ALL_CAPABILITIES, DEFAULT_CAPABILITIES
from kata.oci.seccomp_profile import kernel_version, parse, resolved

with open(os.path.join(os.path.dirname(kata.oci.__file__), "seccomp_default.json")) as file:
    DEFAULT = parse(file.read(), "default")


def names(seccomp, action="SCMP_ACT_ALLOW"):
    """The system calls that a filter has unconditional rules for."""
    return {
        name
        for rule in seccomp["syscalls"]
        if rule["action"] == action and not rule.get("args")
        for name in rule["names"]
    }


def profile(**fields):
    return {"defaultAction": "SCMP_ACT_ERRNO", **fields}


def rule(**fields):
    return {"names": ["read"], "action": "SCMP_ACT_ALLOW", **fields}


def count(one, capabilities=(), kernel=(6, 1), architecture="amd64"):
    """How many rules a profile with one conditional rule comes to."""
    found = resolved(
        profile(syscalls=[one]), capabilities, kernel=kernel, architecture=architecture
    )
    return len(found["syscalls"])


def test_the_default_profile_is_a_valid_filter():
    """The default profile resolves to OCI's shape, with x86's three architectures."""
    seccomp = resolved(DEFAULT, DEFAULT_CAPABILITIES, kernel=(6, 1))
    faults = []
    schema.SECCOMP(seccomp, "seccomp", faults)
    assert faults == []
    assert seccomp["architectures"] == ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]
    assert seccomp["defaultErrnoRet"] == 1


def test_capabilities_change_the_default_profile():
    """What needs a capability is allowed with it alone; clone3 is ENOSYS without SYS_ADMIN."""
    plain = resolved(DEFAULT, DEFAULT_CAPABILITIES, kernel=(6, 1))
    assert not {"mount", "unshare", "setns", "bpf", "reboot", "syslog"} & names(plain)
    assert {"read", "chroot", "ptrace"} <= names(plain)
    assert names(plain, "SCMP_ACT_ERRNO") == {"clone3"}
    admin = resolved(DEFAULT, ("CAP_SYS_ADMIN",), kernel=(6, 1))
    assert {"mount", "unshare", "setns", "bpf", "clone", "clone3"} <= names(admin)
    assert "chroot" not in names(admin)
    assert {"reboot", "syslog", "ptrace"} <= names(
        resolved(DEFAULT, ALL_CAPABILITIES, kernel=(6, 1))
    )
    assert "ptrace" not in names(resolved(DEFAULT, (), kernel=(4, 7)))


def test_conditions():
    """Every kind of condition counts, and all capabilities of a rule are needed."""
    assert count(rule(includes={"caps": ["A", "B"]}), ("A",)) == 0
    assert count(rule(includes={"caps": ["A", "B"]}), ("A", "B")) == 1
    assert count(rule(excludes={"caps": ["A", "B"]}), ("B",)) == 0
    assert count(rule(excludes={"caps": ["A"]}), ()) == 1
    assert count(rule(includes={"arches": ["arm64"]})) == 0
    assert count(rule(includes={"arches": ["arm64"]}), architecture="arm64") == 1
    assert count(rule(excludes={"arches": ["amd64"]})) == 0
    assert count(rule(includes={"minKernel": "6.1"})) == 1
    assert count(rule(includes={"minKernel": "6.2"})) == 0
    assert count(rule(excludes={"minKernel": "5.20"})) == 0
    assert count(rule(excludes={"minKernel": "6.2"})) == 1
    assert count(rule(includes=None, excludes={})) == 1


def test_old_and_plain_forms():
    """A single name, missing values and OCI's own form are understood; nothing is no filter."""
    old = {"name": "read", "names": None, "action": "SCMP_ACT_ALLOW", "args": None}
    assert resolved(profile(syscalls=[old]), (), kernel=(6, 1))["syscalls"] == [rule()]
    plain = profile(architectures=["SCMP_ARCH_X86"], flags=[], syscalls=[rule(errnoRet=3)])
    assert resolved(plain, (), kernel=(6, 1)) == plain
    argument = {"index": 0, "op": "SCMP_CMP_EQ"}
    found = resolved(profile(syscalls=[rule(args=[argument])]), (), kernel=(6, 1))
    assert found["syscalls"][0]["args"] == [{"index": 0, "op": "SCMP_CMP_EQ", "value": 0}]
    assert resolved({}, (), kernel=(6, 1)) is None


@pytest.mark.parametrize(
    "asking",
    [
        profile(defaultAction="SCMP_ACT_NOTIFY"),
        profile(syscalls=[rule(action="SCMP_ACT_NOTIFY")]),
        profile(listenerPath="/run/x.sock"),
    ],
)
def test_a_listener_is_refused(asking):
    """A filter that asks another process is refused in every form."""
    with pytest.raises(Unsupported, match="SCMP_ACT_NOTIFY"):
        resolved(asking, (), kernel=(6, 1))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", 'seccomp profile "p.json": not JSON'),
        ("[]", 'seccomp profile "p.json": must be an object, not an array'),
        ('{"defaultAction": "ALLOW"}', '"p.json": defaultAction: unknown value "ALLOW"'),
        (json.dumps(profile(syscalls=[rule(action=None)])), r"syscalls\[0\]\.action: is missing"),
        (json.dumps(profile(syscalls=[rule(name="write")])), r'syscalls\[0\]: both "name" and'),
        (
            json.dumps(
                profile(
                    architectures=["SCMP_ARCH_X86"], archMap=[{"architecture": "SCMP_ARCH_X86"}]
                )
            ),
            'both "architectures" and "archMap"',
        ),
        (
            json.dumps(profile(syscalls=[rule(includes={"minKernel": "4"})])),
            'must be a kernel version such as "4.8", not "4"',
        ),
        (json.dumps(profile(syscalls=[rule(includes={"minKernel": "0.0"})])), "kernel version"),
        (json.dumps(profile(architectures=["x86"])), r'architectures\[0\]: unknown value "x86"'),
    ],
)
def test_bad_profiles(text, message):
    """Each fault of a profile names the file, the place and the rule."""
    with pytest.raises(InvalidInput, match=message):
        parse(text, "p.json")


def test_kernel_versions():
    """The first two numbers of a release count."""
    assert kernel_version("6.1.0-32-amd64") == (6, 1)
    assert kernel_version("5.10") == (5, 10)
    assert kernel_version("6.12-rc5") == (6, 12)
    for bad in ("", "six", "6", "6.x"):
        with pytest.raises(InvalidInput):
            kernel_version(bad)
