"""Why a virtual machine is gone: the better reason for an agent's silence."""

from __future__ import annotations

import time

from kata.errors import HypervisorError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kata.errors import AgentError, KataError
    from kata.hypervisors.interface import Vm

_CRASH_MARK = "kata-agent: crashed"
_PATIENCE_S = 2.0


def explained(vm: Vm, error: AgentError) -> KataError:
    """What the VMM or the guest's console say about an agent that does not answer.

    A VMM that has just died is given a moment to be found dead; else it is ``error`` itself.
    """
    reason = _death_within(vm, _PATIENCE_S)
    console = vm.console_tail()
    crash = console.rfind(_CRASH_MARK)
    if crash >= 0:
        return HypervisorError(
            "the agent in the guest crashed", why="its traceback is on the console",
            hint="please report this", console=console[crash:],
        )  # fmt: skip
    if reason:
        return HypervisorError(
            "the virtual machine ended", why=reason, console=console,
            hint="the container ended with it",
        )  # fmt: skip
    return error


def _death_within(vm: Vm, seconds: float) -> str:
    end = time.monotonic() + seconds
    while not vm.death() and time.monotonic() < end:
        time.sleep(0.01)
    return vm.death()
