"""Device rules become a program; a small interpreter of it says what it allows."""

from __future__ import annotations

from _struct import Struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kata.errors import InvalidInput
from kata.linux import bpf
from kata.linux.devicefilter import _ALLOWED, compile_rules

MKNOD, READ, WRITE = 1, 2, 4
BLOCK, CHAR = 1, 2
DENY_ALL = {"allow": False, "access": "rwm"}


def allowed(program: bytes, kind: int, major: int, minor: int, access: int) -> bool:
    """Run the program as the kernel would."""
    context = (access << 16 | kind, major, minor)
    code = list(Struct("<BBhi").iter_unpack(program))
    registers, at = [0] * 10, 0
    while True:
        operation, both, offset, value = code[at]
        dst, src = both & 15, both >> 4
        at += 1
        match operation:
            case 0x61:
                registers[dst] = context[offset // 4]
            case 0x54:
                registers[dst] &= value
            case 0x74:
                registers[dst] >>= value
            case 0xBC:
                registers[dst] = registers[src]
            case 0xB7:
                registers[dst] = value
            case 0x55:
                at += offset if registers[dst] != value else 0
            case 0x5D:
                at += offset if registers[dst] != registers[src] else 0
            case 0x95:
                return bool(registers[0])
            case _:
                raise AssertionError(hex(operation))


def expected(rules, kind: int, major: int, minor: int, access: int) -> bool:
    """The same by the words of the specification."""
    for k, a, i, granted in _ALLOWED:
        if k == kind and a in (-1, major) and i in (-1, minor) and not access & ~granted:
            return True
    for rule in reversed(rules):
        letters = sum({"m": 1, "r": 2, "w": 4}[c] for c in rule.get("access", "rwm"))
        if (
            {"a": kind, "b": 1, "c": 2}[rule.get("type", "a")] == kind
            and rule.get("major", major) == major
            and rule.get("minor", minor) == minor
            and not access & ~letters
        ):
            return rule["allow"]
    return False


number = st.integers(0, 3)
rule_of = st.fixed_dictionaries(
    {"allow": st.booleans()},
    optional={
        "type": st.sampled_from("abc"),
        "major": number,
        "minor": number,
        "access": st.sampled_from(["r", "w", "m", "rw", "rwm"]),
    },
)


@given(st.lists(rule_of, max_size=6), st.sampled_from((1, 2)), number, number, st.integers(1, 7))
def test_the_program_decides_as_the_rules_do(rules, kind, major, minor, access):
    """For any rules and any access: the last rule that matches, else no."""
    wanted = expected(rules, kind, major, minor, access)
    assert allowed(compile_rules(rules), kind, major, minor, access) == wanted


def test_defaults():
    """Without rules: the harmless devices, terminals, making any node; nothing else."""
    for program in (compile_rules([]), compile_rules([DENY_ALL])):
        assert allowed(program, CHAR, 1, 3, READ | WRITE)
        assert allowed(program, CHAR, 136, 7, READ | WRITE)
        assert allowed(program, BLOCK, 254, 0, MKNOD)
        assert not allowed(program, BLOCK, 254, 0, READ)
        assert not allowed(program, CHAR, 5, 1, WRITE)


def test_rules_that_change_nothing_cost_nothing():
    """What is granted anyway adds no instruction, so equal filters are equal bytes."""
    granted = {"allow": True, "type": "c", "major": 1, "minor": 3, "access": "rwm"}
    assert compile_rules([DENY_ALL, granted]) == compile_rules([])


def test_letters_that_are_none():
    """They are passed over, as by runc: they allow nothing."""
    odd, plain = ([{"allow": True, "type": "c", "access": a}] for a in ("rq", "r"))
    assert compile_rules(odd) == compile_rules(plain)
    assert compile_rules([{"allow": True, "access": "q"}]) != compile_rules([{"allow": True}])


@pytest.mark.parametrize("rule", [{"allow": True, "type": "x"}, {"allow": True, "access": 5}])
def test_nonsense_is_refused(rule):
    """Unknown types, and accesses that are no text, are errors."""
    with pytest.raises(InvalidInput):
        compile_rules([rule])


def test_a_load_that_a_signal_broke_off_is_repeated(monkeypatch):
    """The kernel says EAGAIN then; for ever, and it is an error that names what was done."""
    answers = [BlockingIOError(), BlockingIOError(), 7]

    def call(*_arguments, what="") -> int:
        answer = answers.pop(0)
        if isinstance(answer, OSError):
            raise type(answer)(11, "again", what)
        return answer

    monkeypatch.setattr(bpf, "syscall", call)
    assert bpf.load(1, b"", what="it") == 7
    answers += [BlockingIOError()] * 9
    with pytest.raises(BlockingIOError) as caught:
        bpf.load(1, b"", what="it")
    assert caught.value.filename == "load it"
