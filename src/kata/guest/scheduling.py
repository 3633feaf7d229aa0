"""How a process is scheduled, for processors and for disks, and what kernel it believes to be on.

Sources: runtime-spec config.md (scheduler, ioPriority, execCPUAffinity) and config-linux.md
(personality); sched_setattr(2), ioprio_set(2), personality(2).
"""

from __future__ import annotations

import os
from _struct import Struct

from kata.errors import InvalidInput
from kata.guest.rootfs import failed
from kata.linux import syscalls as sc

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_POLICIES = {
    "SCHED_OTHER": 0, "SCHED_FIFO": 1, "SCHED_RR": 2, "SCHED_BATCH": 3, "SCHED_ISO": 4,
    "SCHED_IDLE": 5, "SCHED_DEADLINE": 6,
}  # fmt: skip
_FLAGS = {
    "SCHED_FLAG_RESET_ON_FORK": 1, "SCHED_FLAG_RECLAIM": 2, "SCHED_FLAG_DL_OVERRUN": 4,
    "SCHED_FLAG_KEEP_POLICY": 8, "SCHED_FLAG_KEEP_PARAMS": 16, "SCHED_FLAG_UTIL_CLAMP_MIN": 32,
    "SCHED_FLAG_UTIL_CLAMP_MAX": 64,
}  # fmt: skip
_ATTRIBUTES = Struct("<IIQiIQQQ")  # struct sched_attr, version 0
_IO_CLASSES = {"IOPRIO_CLASS_RT": 1, "IOPRIO_CLASS_BE": 2, "IOPRIO_CLASS_IDLE": 3}
_IO_CLASS_SHIFT, _WHO_PROCESS = 13, 1
_DOMAINS = {"LINUX": 0, "LINUX32": 8}


def give_way() -> None:
    """Let a wake-up of the agent interrupt no process that runs: sched(7), SCHED_BATCH.

    What a short process does (it runs its program, writes, ends) is then seen to at once and
    answered by one write, with two changes of the address space instead of eight: each empties
    the emulator's translations of addresses. A processor that is idle is had at once all the
    same, a busy one at its next tick. ``child.run`` undoes it for whatever is forked.
    """
    os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


def come_first() -> None:
    """Undo that: what a process writes is sent before it goes on."""
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


def apply(process: dict[str, Any]) -> None:
    """What the process object asks for; raises ``GuestError`` or ``InvalidInput``."""
    priority, scheduler = process.get("ioPriority"), process.get("scheduler")
    if priority:
        value = _IO_CLASSES[priority["class"]] << _IO_CLASS_SHIFT | int(
            priority.get("priority") or 0
        )
        _call(sc.SYS_IOPRIO_SET, _WHO_PROCESS, 0, value, what="set the I/O priority")
    if scheduler:
        _schedule(scheduler)
    affinity = (process.get("execCPUAffinity") or {}).get("final")
    if affinity:
        try:
            os.sched_setaffinity(0, cpus(affinity))
        except OSError as error:
            raise failed(f'run on the processors "{affinity}"', error) from None


def personality(wanted: dict[str, Any]) -> None:
    """The execution domain that linux.personality names."""
    if wanted.get("flags"):
        raise InvalidInput("linux.personality.flags are not supported")
    sc.personality(_DOMAINS[wanted["domain"]])


def cpus(text: str) -> set[int]:
    """A list such as ``0-3,7``. Raises ``InvalidInput``."""
    found: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise InvalidInput(f'not a list of processors: "{text}"')
        found.update(range(int(first), int(last if dash else first) + 1))
    return found


def _schedule(scheduler: dict[str, Any]) -> None:
    flags = 0
    for name in scheduler.get("flags") or ():
        flags |= _FLAGS[name]
    attributes = _ATTRIBUTES.pack(
        _ATTRIBUTES.size,
        _POLICIES[scheduler["policy"]],
        flags,
        int(scheduler.get("nice") or 0),
        int(scheduler.get("priority") or 0),
        int(scheduler.get("runtime") or 0),
        int(scheduler.get("deadline") or 0),
        int(scheduler.get("period") or 0),
    )
    _call(sc.SYS_SCHED_SETATTR, 0, attributes, 0, what=f'schedule as "{scheduler["policy"]}"')


def _call(number: int, *arguments: int | bytes, what: str) -> None:
    try:
        sc.syscall(number, *arguments)
    except OSError as error:
        raise failed(what, error) from None
