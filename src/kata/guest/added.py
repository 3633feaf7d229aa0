"""Processes added to a container that runs.

The rule: one is forked at the end of the batch that asked for it. What the agent does after a fork
copies the memory it touches for as long as the child has not executed its program.
"""

from __future__ import annotations

import os

from kata.errors import InvalidInput, WrongState
from kata.guest import pipes as wires
from kata.guest import spawn
from kata.guest.child import Child
from kata.guest.process import Process
from kata.guest.rootfs import failed
from kata.guest.spec import document, filter_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kata.guest.container import Container
    from kata.guest.loop import Loop
    from kata.guest.spec import Spec
    from kata.wire.agent_api import ExecRequest


class Adder:
    """Adds processes to containers."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._home = -1  # the agent's pid namespace, once a child was born in another

    def add(self, container: Container, request: ExecRequest) -> Process:
        """One more process; what keeps it from being forked is its outcome."""
        process = document(request.process, "the process")
        if not isinstance(process.get("args"), list):
            raise InvalidInput("process.args is missing")
        seccomp, flags = filter_of(request.seccomp)
        plan: Spec = {
            "process": process, "seccomp": seccomp, "seccomp_flags": flags, "init": False,
            "streams": (request.stdin, request.stdout, request.stderr),
        }  # fmt: skip
        pipes = wires.Pipes.of(plan)
        terminal = bool(process.get("terminal"))
        added = Process(self._loop, request.exec_id, 0, pipes, terminal=terminal, alone=False)
        self._loop.at_last(lambda: self._begin(container, added, plan, pipes))
        return added

    def _begin(self, container: Container, added: Process, plan: Spec, pipes: wires.Pipes) -> None:
        try:
            if added.closed:  # the container was removed in the same batch
                added.unborn(WrongState(f'container "{container.id}" is not running'))
            else:
                added.born(self._fork(container, plan, pipes))
        except OSError as error:
            added.unborn(failed("start a process in the container", error))
        finally:
            pipes.close_child_ends()

    def _fork(self, container: Container, plan: Spec, pipes: wires.Pipes) -> int:
        kinds = container.joined_kinds()
        pidfd = os.pidfd_open(container.init.pid)

        def body() -> None:
            child = Child(plan, pipes.child_go, pipes.child_report, pipes.child_stdio)
            child.exec(pidfd, kinds)

        try:
            if container.users is not None:
                container.users.own_streams(pipes.child_stdio)
            if self._home < 0:
                self._home = spawn.own("pid")
            return spawn.fork_beside(
                pidfd, container.group.path, body, pipes.child_report,
                [*pipes.child_ends(), pidfd], home=self._home if "pid" in container.kinds else -1,
            )  # fmt: skip
        finally:
            os.close(pidfd)
