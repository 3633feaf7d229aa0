"""The BPF programs: run in a small interpreter, against what the rules say."""

import errno

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kata.errors import InvalidInput, Unsupported
from kata.linux.libseccomp import compiled, enosys_stub, version
from support.bpf import I386, default, run

X32 = 1 << 30
ALLOW, ERRNO, KILL_THREAD = 0x7FFF0000, 0x50000, 0
READ, WRITE, CLONE, UNSHARE, CLONE3, SOCKET = 0, 1, 56, 272, 435, 41


DEFAULT = compiled(default())[0]


def test_version():
    """The library tells its version."""
    assert version().count(".") == 2


def test_the_default_profile():
    """Allowed, denied and unknown calls get Docker's answers, on every architecture."""
    assert run(DEFAULT, READ) == ALLOW
    assert run(DEFAULT, UNSHARE) == ERRNO | errno.EPERM
    assert run(DEFAULT, CLONE3) == ERRNO | errno.ENOSYS
    assert run(DEFAULT, CLONE, 0x11) == ALLOW
    assert run(DEFAULT, CLONE, 0x10000000) == ERRNO | errno.EPERM
    assert run(DEFAULT, SOCKET, 2) == ALLOW
    assert run(DEFAULT, SOCKET, 40) == ERRNO | errno.EPERM
    assert run(DEFAULT, 1000) == ERRNO | errno.ENOSYS
    assert run(DEFAULT, X32 | READ) == ALLOW
    assert run(DEFAULT, X32 | 10_000) == ERRNO | errno.ENOSYS
    assert run(DEFAULT, 3, arch=I386) == ALLOW
    assert run(DEFAULT, 310, arch=I386) == ERRNO | errno.EPERM
    assert run(DEFAULT, 10_000, arch=I386) == ERRNO | errno.ENOSYS
    assert run(DEFAULT, READ, arch=0xC00000B7) == KILL_THREAD


def test_capabilities_open_the_filter():
    """With SYS_ADMIN unshare is allowed."""
    assert run(compiled(default(("CAP_SYS_ADMIN",)))[0], UNSHARE) == ALLOW


def seccomp(*rules, default="SCMP_ACT_ERRNO", **fields):
    return {"defaultAction": default, "syscalls": list(rules), **fields}


def rule(names, action="SCMP_ACT_ALLOW", **fields):
    return {"names": names, "action": action, **fields}


def test_actions_and_errnos():
    """Every action arrives as the kernel's value, with the error number of the rule."""
    program, _ = compiled(
        seccomp(
            rule(["read"]),
            rule(["write"], "SCMP_ACT_ERRNO", errnoRet=5),
            rule(["open"], "SCMP_ACT_KILL"),
            rule(["close"], "SCMP_ACT_KILL_PROCESS"),
            rule(["stat"], "SCMP_ACT_TRAP"),
            rule(["fstat"], "SCMP_ACT_TRACE", errnoRet=9),
            rule(["lstat"], "SCMP_ACT_LOG"),
            rule(["poll"], "SCMP_ACT_ERRNO"),
            rule(["no_such_call", "unshare"]),
            defaultErrnoRet=7,
        )
    )
    answers = [run(program, n) for n in (*range(9), UNSHARE)]
    assert answers == [
        ALLOW, ERRNO | 5, 0, 0x80000000, 0x30000, 0x7FF00009, 0x7FFC0000, ERRNO | 1, ERRNO | 7,
        ALLOW,
    ]  # fmt: skip


def test_flags():
    """Flags become seccomp(2)'s; without any, the one runc sets; listeners are refused."""
    assert compiled(seccomp(rule(["read"])))[1] == 4
    assert compiled(seccomp(rule(["read"]), flags=[]))[1] == 0
    both = ["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_TSYNC"]
    assert compiled(seccomp(rule(["read"]), flags=both))[1] == 2
    with pytest.raises(Unsupported, match="WAIT_KILLABLE"):
        compiled(seccomp(flags=["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]))
    with pytest.raises(Unsupported, match="NOTIFY"):
        compiled(seccomp(rule(["read"], "SCMP_ACT_NOTIFY")))


def test_no_stub_where_calls_are_allowed():
    """A filter that allows by default, or says ENOSYS anyway, gets nothing in front."""
    deny = rule(["read"], "SCMP_ACT_ERRNO")
    assert run(compiled(seccomp(deny, default="SCMP_ACT_ALLOW"))[0], 1000) == ALLOW
    quiet = compiled(seccomp(rule(["read"]), defaultErrnoRet=errno.ENOSYS))[0]
    assert run(quiet, 1000) == ERRNO | errno.ENOSYS
    assert enosys_stub({}) == b""


def test_the_same_argument_twice():
    """Two conditions on one argument are alternatives, as in runc; on two, both must hold."""
    twice = [{"index": 0, "value": v, "op": "SCMP_CMP_EQ"} for v in (1, 2)]
    program, _ = compiled(seccomp(rule(["read"], args=twice)))
    assert [run(program, READ, n) == ALLOW for n in (0, 1, 2)] == [False, True, True]
    both = [{"index": i, "value": 1, "op": "SCMP_CMP_EQ"} for i in (0, 1)]
    program, _ = compiled(seccomp(rule(["read"], args=both)))
    assert [run(program, READ, *a) == ALLOW for a in ((1, 0), (0, 1), (1, 1))] == [
        False, False, True,
    ]  # fmt: skip


HOLDS = {
    "SCMP_CMP_NE": lambda x, a, _: x != a,
    "SCMP_CMP_LT": lambda x, a, _: x < a,
    "SCMP_CMP_LE": lambda x, a, _: x <= a,
    "SCMP_CMP_EQ": lambda x, a, _: x == a,
    "SCMP_CMP_GE": lambda x, a, _: x >= a,
    "SCMP_CMP_GT": lambda x, a, _: x > a,
    "SCMP_CMP_MASKED_EQ": lambda x, a, b: x & a == b,
}
NUMBERS = st.integers(0, 5) | st.sampled_from([1 << 31, 1 << 32, (1 << 32) + 1, (1 << 64) - 1])


@given(st.sampled_from(sorted(HOLDS)), NUMBERS, NUMBERS, NUMBERS, st.integers(0, 5))
def test_comparisons_are_of_64_bits(operator, value, second, argument, index):
    """Every comparison means what it says, for wide numbers and any argument."""
    condition = {"index": index, "value": value, "valueTwo": second, "op": operator}
    program, _ = compiled(seccomp(rule(["read"], args=[condition])))
    arguments = [0] * 6
    arguments[index] = argument
    expected = HOLDS[operator](argument, value, second)
    if operator == "SCMP_CMP_MASKED_EQ" and second & ~value:
        return  # libseccomp masks the second value too
    assert (run(program, READ, *arguments) == ALLOW) == expected


def test_unknown_architecture():
    """An architecture libseccomp does not know is refused by name."""
    with pytest.raises(InvalidInput, match="SCMP_ARCH_PDP11"):
        compiled(seccomp(architectures=["SCMP_ARCH_PDP11"]))
