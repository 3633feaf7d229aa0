"""A seccomp program made small: the same answers from far fewer instructions.

The one rule: exact. A program is followed for every architecture and every range of system call
numbers it tells apart; what it does with arguments is kept as it is. A program that does
anything else is left as it was.

Why: libseccomp's program for the usual profile has 1,300 instructions, and a guest without
hardware virtualisation runs 2.6 million instructions to check and translate it for a container.
"""

from __future__ import annotations

from _struct import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeAlias

    Code: TypeAlias = list[tuple[int, int, int, int]]
    # what follows is named by number, so that equal parts are one:
    # (RETURN, value) (LOAD, offset, next) (AND, mask, next) (a comparison, value, yes, no)
    Node: TypeAlias = tuple[int, ...]
    Ranges: TypeAlias = list[tuple[int, int]]  # first system call number, node
    Seen: TypeAlias = dict[tuple[int, int | None], int]

_INSTRUCTION = Struct("=HBBI")
_LOAD, _AND, _RETURN, _ALWAYS = 0x20, 0x54, 0x06, 0x05
_JEQ, _JGT, _JGE, _JSET = 0x15, 0x25, 0x35, 0x45
_NUMBER, _ARCHITECTURE = 0, 4  # offsets in struct seccomp_data; beyond them are the arguments
_TOP = 1 << 32
_FARTHEST = 255  # of a conditional jump


class _Unknown(Exception):
    """The program does something that is not followed here."""


def shrunk(program: bytes) -> bytes:
    """A shorter program with the same answers, or the program itself if there is none."""
    code = list(_INSTRUCTION.iter_unpack(program))
    try:
        graph = _Graph(code)
        small = graph.assembled(graph.whole())
    except (_Unknown, RecursionError, IndexError):
        return program
    return small if len(small) < len(program) else program


class _Graph:
    """The answers of a program as a graph in which equal parts exist once."""

    def __init__(self, code: Code) -> None:
        self._code = code
        self._nodes: list[Node] = []
        self._numbers: dict[Node, int] = {}
        self._points = _points(code)

    def _node(self, *parts: int) -> int:
        if parts not in self._numbers:
            self._numbers[parts] = len(self._nodes)
            self._nodes.append(parts)
        return self._numbers[parts]

    def whole(self) -> int:
        """The program's answer to everything."""
        known = sorted(_architectures(self._code))
        strange = next(n for n in range(len(known) + 1) if n not in known)
        tree = self._by_number(strange)
        for architecture in known:
            tree = self._node(_JEQ, architecture, self._by_number(architecture), tree)
        return self._node(_LOAD, _ARCHITECTURE, tree)

    def _by_number(self, architecture: int) -> int:
        ranges: Ranges = []
        for number in self._points:
            found = self._follow(0, (architecture, number), 0, {})
            if not ranges or ranges[-1][1] != found:
                ranges.append((number, found))
        if len(ranges) == 1:
            return ranges[0][1]
        return self._node(_LOAD, _NUMBER, self._search(ranges))

    def _search(self, ranges: Ranges) -> int:
        """A balanced search for the range that a number is in."""
        if len(ranges) == 1:
            return ranges[0][1]
        if len(ranges) == 3 and ranges[0][1] == ranges[2][1] and ranges[1][0] + 1 == ranges[2][0]:
            return self._node(_JEQ, ranges[1][0], ranges[1][1], ranges[0][1])
        middle = len(ranges) // 2
        above, below = self._search(ranges[middle:]), self._search(ranges[:middle])
        return self._node(_JGE, ranges[middle][0], above, below)

    def _follow(self, at: int, call: tuple[int, int], value: int | None, seen: Seen) -> int:
        """What the program does from an instruction on, for one architecture and number.

        ``value`` is the accumulator's, None while it holds something of an argument.
        """
        entry = (at, value)
        if entry not in seen:
            seen[entry] = self._step(at, call, value, seen)
        return seen[entry]

    def _step(self, at: int, call: tuple[int, int], value: int | None, seen: Seen) -> int:
        while True:
            code, yes, no, constant = self._code[at]
            at += 1
            if code == _RETURN:
                return self._node(_RETURN, constant)
            if code == _ALWAYS:
                at += constant
            elif code == _LOAD and constant in (_NUMBER, _ARCHITECTURE):
                value = call[1] if constant == _NUMBER else call[0]
            elif code in (_LOAD, _AND) and (code == _LOAD or value is None):
                return self._node(code, constant, self._follow(at, call, None, seen))
            elif code not in _HOLDS:
                raise _Unknown
            elif value is not None:
                at += yes if _HOLDS[code](value, constant) else no
            else:
                good = self._follow(at + yes, call, None, seen)
                bad = self._follow(at + no, call, None, seen)
                return good if good == bad else self._node(code, constant, good, bad)

    def assembled(self, root: int) -> bytes:
        """Instructions, made from the end to the beginning: all jumps go forward."""
        out: list[tuple[int, int, int, int]] = []
        heights: dict[int, int] = {}  # of a node: instructions from it to the end

        def jump(target: int) -> None:
            out.append((_ALWAYS, 0, 0, len(out) - target))

        def place(node: int) -> int:
            if node in heights:
                return heights[node]
            code, *parts = self._nodes[node]
            if code == _RETURN:
                out.append((code, 0, 0, parts[0]))
            elif code in (_LOAD, _AND):
                after = place(parts[1])
                if after != len(out):
                    jump(after)
                out.append((code, 0, 0, parts[0]))
            else:
                good, bad = place(parts[1]), place(parts[2])
                if len(out) - bad > _FARTHEST - 1:
                    jump(bad)
                    bad = len(out)
                if len(out) - good > _FARTHEST:
                    jump(good)
                    good = len(out)
                out.append((code, len(out) - good, len(out) - bad, parts[0]))
            heights[node] = len(out)
            return len(out)

        place(root)
        return b"".join(_INSTRUCTION.pack(*i) for i in reversed(out))


_HOLDS = {
    _JEQ: lambda value, constant: value == constant,
    _JGT: lambda value, constant: value > constant,
    _JGE: lambda value, constant: value >= constant,
    _JSET: lambda value, constant: value & constant != 0,
}


def _points(code: Code) -> list[int]:
    """The numbers at which an answer may change: between two of them all numbers are equal."""
    points = {0}
    for operation, _, _, constant in code:
        if operation in (_JEQ, _JGE):
            points.add(constant)
        if operation in (_JEQ, _JGT):
            points.add(constant + 1)
        if operation == _JSET:
            if constant < 1 << 28 or constant & (constant - 1):
                raise _Unknown
            points.update(range(0, _TOP, constant))
    return sorted(p for p in points if p < _TOP)


def _architectures(code: Code) -> set[int]:
    """The architectures that a program compares with."""
    found: set[int] = set()
    waiting = [i + 1 for i, c in enumerate(code) if c[0] == _LOAD and c[3] == _ARCHITECTURE]
    done: set[int] = set()
    while waiting:
        at = waiting.pop()
        if at in done:
            continue
        done.add(at)
        operation, yes, no, constant = code[at]
        if operation == _ALWAYS:
            waiting.append(at + 1 + constant)
        elif operation == _JEQ:
            found.add(constant)
            waiting += [at + 1 + yes, at + 1 + no]
        elif operation not in (_LOAD, _RETURN):
            raise _Unknown
    return found
