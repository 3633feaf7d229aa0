"""Where the time of a start goes: named moments on one clock, phases between them.

All processes of a start share the host's monotonic clock, so their moments can be merged.
"""

from __future__ import annotations

import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

# moment -> what the time before it was spent on
PHASES = {
    "main": "interpreter",
    "parsed": "command line",
    "resolved": "image and template",
    "forked": "supervisor",
    "spawned": "monitor: spawn",
    "found": "search of the pool",
    "taken": "handing over",
    "adopted": "adoption",
    "files": "files",
    "ready": "monitor: restore",
    "agent": "agent",
    "started": "container",
    "output": "first output",
    "exited": "workload",
    "drained": "output drained",
    "stopped": "teardown",
    "done": "exit",
}


class Marks:
    """Moments noted so far: (name, monotonic nanoseconds)."""

    def __init__(self, marks: Iterable[tuple[str, int]] = ()) -> None:
        self.list = list(marks)

    def mark(self, name: str) -> None:
        """Note that a phase ended now."""
        self.list.append((name, time.monotonic_ns()))

    def once(self, name: str) -> None:
        """Note it if it was not noted yet."""
        if all(known != name for known, _ in self.list):
            self.mark(name)


def process_start_ns() -> int:
    """When this process started executing, on the monotonic clock.

    The kernel keeps it in ticks of 10 ms only; the processor time used so far is exact, and at
    the beginning of a program it is the time passed.
    """
    return time.monotonic_ns() - time.process_time_ns()


def phases(begin_ns: int, marks: Iterable[tuple[str, int]]) -> list[tuple[str, float]]:
    """(phase, milliseconds) in the order they ended; they sum to the whole."""
    result = []
    last = begin_ns
    for name, moment in sorted(marks, key=lambda item: item[1]):
        result.append((PHASES.get(name, name), (moment - last) / 1e6))
        last = moment
    return result
