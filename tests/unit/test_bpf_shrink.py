"""Programs made smaller give the same answers, to every call."""

from struct import iter_unpack, pack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kata.linux import bpf_shrink, libseccomp
from kata.linux.bpf_shrink import shrunk
from support.bpf import I386, X86_64, default, run

ARCHITECTURES = (X86_64, I386, 0, 0xC00000B7)
WORDS = (0, 1, 2, 3, 16, 17, 45, 0x7E020000, 1 << 28, (1 << 32) - 1, 1 << 32, (1 << 64) - 1)


def original(seccomp, monkeypatch):
    """What libseccomp makes of a filter, with the stub, before it is made smaller."""
    monkeypatch.setattr(libseccomp, "shrunk", lambda program: program)
    return libseccomp.compiled(seccomp)[0]


def boundaries(program):
    """Every number at which an answer can change, and its neighbours."""
    constants = {k for _, _, _, k in iter_unpack("=HBBI", program)} | {1 << 30, 1 << 31}
    near = {k + d for k in constants for d in (-1, 0, 1)}
    return sorted(n for n in near | {0} if 0 <= n < 1 << 32)


def same(before, after, arguments):
    for arch in ARCHITECTURES:
        for number in boundaries(before):
            for given_arguments in arguments:
                one = run(before, number, *given_arguments, arch=arch)
                assert one == run(after, number, *given_arguments, arch=arch), (arch, number)


def test_the_default_profile(monkeypatch):
    """The usual filter comes to a third of its size, with the same answers everywhere."""
    before = original(default(), monkeypatch)
    after = shrunk(before)
    assert len(after) * 2 < len(before)
    same(before, after, [(word, word) for word in (0, 17, 0x10000000, (1 << 64) - 1)])
    for number in (41, 56, 135):  # socket, clone, personality: by their arguments
        for word in (*WORDS, *range(50)):
            assert run(before, number, word) == run(after, number, word)


CALLS = ["read", "write", "open", "socket", "clone", "unshare", "futex", "mount", "personality"]
CONDITIONS = st.lists(
    st.fixed_dictionaries(
        {
            "index": st.integers(0, 5),
            "value": st.sampled_from(WORDS),
            "valueTwo": st.sampled_from(WORDS),
            "op": st.sampled_from(sorted(libseccomp._OPERATORS)),
        }
    ),
    max_size=2,
)
RULES = st.fixed_dictionaries(
    {
        "names": st.lists(st.sampled_from(CALLS), min_size=1, max_size=4),
        "action": st.sampled_from(["SCMP_ACT_ALLOW", "SCMP_ACT_LOG", "SCMP_ACT_KILL_PROCESS"]),
        "args": CONDITIONS,
    }
)


@given(st.lists(RULES, min_size=1, max_size=5), st.booleans(), st.lists(st.sampled_from(WORDS)))
def test_any_filter(rules, wide, words):
    """Whatever the rules, on one architecture or three: the same answers."""
    seccomp = {"defaultAction": "SCMP_ACT_ERRNO", "syscalls": rules}
    if wide:
        seccomp["architectures"] = ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]
    with pytest.MonkeyPatch.context() as patch:
        try:
            before = original(seccomp, patch)
        except libseccomp.InvalidInput:
            return  # rules that contradict each other
    after = shrunk(before)
    assert len(after) <= len(before)
    same(before, after, [words[:6], [1] * 6, [0] * 6])


def test_far_jumps():
    """Answers further away than a jump reaches are reached all the same."""
    count = 700
    code = [(0x20, 0, 0, 0)]
    code += [step for n in range(count) for step in ((0x15, 0, 1, 3 * n), (0x06, 0, 0, n))]
    code += [(0x06, 0, 0, 0xFFFF)]
    before = b"".join(pack("=HBBI", *step) for step in code)
    graph = bpf_shrink._Graph(list(iter_unpack("=HBBI", before)))
    after = graph.assembled(graph.whole())
    for number in range(3 * count + 3):
        assert run(before, number) == run(after, number)


@pytest.mark.parametrize(
    "code",
    [
        [(0x20, 0, 0, 0), (0x54, 0, 0, 1), (0x06, 0, 0, 0)],  # a mask on the number
        [(0x20, 0, 0, 0), (0x45, 0, 0, 3), (0x06, 0, 0, 0)],  # odd bits of the number
        [(0x61, 0, 0, 0), (0x06, 0, 0, 0)],  # scratch memory
        [(0x20, 0, 0, 0)],  # no end
        [(0x20, 0, 0, 4), (0x25, 0, 0, 1), (0x06, 0, 0, 0)],  # an order of architectures
    ],
)
def test_what_is_not_understood_stays(code):
    """A program with anything unforeseen is left as it was."""
    program = b"".join(pack("=HBBI", *step) for step in code)
    assert shrunk(program) == program
