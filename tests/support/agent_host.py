"""Runs the real agent outside of a guest: arguments are the source, a descriptor, two directories.

What would touch the machine as a whole (clock, names, entropy, power) is written to standard
output instead. Asked with ``isolated``, the agent is the first process of a pid namespace with
mounts of its own, as in a guest, so everything it made dies with it.
"""

from __future__ import annotations

import os
import sys


def main(source: str, fd: str, run: str, cgroup: str, kind: str) -> None:
    """Serve until the other end is closed or wants the power off."""
    sys.path.insert(0, source)
    from kata.guest.machine import Machine
    from kata.guest.server import Agent, Place
    from kata.linux import syscalls as sc

    class Tame(Machine):
        def add_entropy(self, data: bytes) -> None:
            print("entropy", len(data), flush=True)

        def set_clock(self, realtime_ns: int) -> None:
            print("clock", realtime_ns, flush=True)

        def set_names(self, hostname: str, machine_id: str) -> None:
            print("names", hostname, machine_id, flush=True)

    sc.prctl(sc.PR_SET_PDEATHSIG, 9)
    if kind == "isolated":
        pid = sc.clone(sc.CLONE_NEWPID | sc.CLONE_NEWNS)
        if pid:
            os.close(int(fd))
            os._exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) & 0xFF)
        sc.prctl(sc.PR_SET_PDEATHSIG, 9)
        sc.mount("", "/", None, sc.MS_REC | sc.MS_PRIVATE)
        sc.mount("proc", "/proc", "proc")
        sc.mount("", "/", None, sc.MS_REC | sc.MS_SHARED)
    agent = Agent(Place(run, cgroup), Tame())
    agent.serve(int(fd))
    print("power off" if agent.power_off_wanted else "hang up", flush=True)
    os._exit(0)


main(*sys.argv[1:])
