"""A parked child that is ready but for its program: root made, confinement done, before a freeze.

The rule: it does in the same order all that another child does, only earlier; what is left to it
is allowed by its own confinement: executing the program. Words go through it unread, as bytes.
"""

from __future__ import annotations

import os

from kata.errors import KataError
from kata.guest import pipes, readahead
from kata.guest.child import INIT_FAILED, Child
from kata.guest.confine import execute, execute_named, find_program, home_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn


class Settled(Child):
    """The child's side, from a root that was entered on."""

    def __init__(self, plan: dict[str, Any], go: int, report: int, stdio: list[int]) -> None:
        super().__init__(plan, go, report, stdio)
        self._stdin = stdio[0]
        self._home = b""

    def settle(self, bounded: int) -> None:
        """Everything that does not depend on the program; ``bounded`` is the bounding set's mask.

        What the program of the plan will read is read, for those that come are mostly like it.
        """
        self._adjust_oom()
        self._confinement.bounded, self._confinement.keyed = bounded, True
        self._read_ahead()
        os.setsid()
        if self._confinement.uid:
            os.fchown(self._stdin, self._confinement.uid, -1)
        self._home = os.fsencode(home_of(self._confinement.uid))
        self._connect()
        self._confinement.apply(make_cwd=True)

    def _read_ahead(self) -> None:
        try:
            path = find_program(self._confinement.args[0], self._confinement.env)
        except KataError:
            return  # the next one's may be there
        readahead.program(path)

    def run(self, program: bytes, *, let_go: bool) -> NoReturn:
        """Become the program; unless it was let go already, only when it is."""
        end = 5 + int.from_bytes(program[1:5], "little")
        args = program[5:end].split(b"\0")[:-1]
        env = dict(entry.split(b"=", 1) for entry in program[end:].split(b"\0")[:-1])
        env.setdefault(b"HOME", self._home)
        if program[0]:
            os.dup2(self._stdin, 0)
        name, path = os.fsdecode(args[0]), env.get(b"PATH")
        paths = {} if path is None else {"PATH": os.fsdecode(path)}
        if let_go:  # the execution itself finds it, or says why not
            self._confinement.filter()
            execute_named(name, args, env, paths)
        found = find_program(name, paths)
        pipes.report(self._report, pipes.READY)
        if not os.read(self._go, 1):
            os._exit(INIT_FAILED)
        self._confinement.filter()
        execute(found, args, env)
        raise AssertionError


def told(args: bytes, env: bytes, *, stdin: bool) -> bytes:
    """What ``run`` reads: words that each end with a zero byte."""
    return bytes((stdin,)) + len(args).to_bytes(4, "little") + args + env
