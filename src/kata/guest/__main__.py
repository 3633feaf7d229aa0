"""PID 1 of the guest: boots it, serves the host, and says so if it cannot go on."""

from __future__ import annotations

import os
import sys
from fcntl import ioctl

from kata.guest import boot, scheduling
from kata.guest.server import Agent
from kata.linux import syscalls

_TCSBRK = 0x5409  # with 1: wait until all output is out


def main() -> None:
    """Boot and serve until the host wants the power off; never returns in the guest."""
    try:
        boot.move_root()
        boot.mount_all()
        boot.open_console()
        boot.load_modules()
        debug = boot.parameters().get("log") == "debug"
        port = boot.open_port()
        boot.steady_heap()
        scheduling.give_way()
        agent = Agent()
        agent.machine.open_files()
        if debug:
            boot.log("ready")
        while not agent.power_off_wanted:
            boot.wait_for_host(port)
            agent.serve(port)
            if debug and not agent.power_off_wanted:
                boot.log("the host closed the connection")
        agent.machine.power_off()
    except BaseException:
        crashed()


def crashed() -> None:
    """Print what happened where the host finds it, and end the VM.

    By a restart, which the VMM takes for its end: not every machine has a switch to be turned off.
    """
    kind, error, trace = sys.exc_info()
    assert kind is not None
    assert error is not None
    boot.log("crashed")
    if sys.stderr is None:
        sys.stderr = open(2, "w", encoding="utf-8", errors="replace", closefd=False)
    sys.__excepthook__(kind, error, trace)
    sys.stderr.flush()
    try:
        ioctl(2, _TCSBRK, 1)
    except OSError:
        pass
    os.sync()
    syscalls.reboot(syscalls.RB_AUTOBOOT)


if __name__ == "__main__":
    main()
