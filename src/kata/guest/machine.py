"""What makes this VM itself: its entropy, clock, names; and switching it off.

The rule: nothing here is read before it was set: a clone of a template that looked at its boot id
or drew random numbers first would share them with its siblings.
"""

from __future__ import annotations

import os
import sys
import time
from fcntl import ioctl

from kata.errors import InvalidInput
from kata.linux import syscalls

_RNDADDENTROPY, _RNDRESEEDCRNG = 0x40085203, 0x5207  # linux/random.h
_MAX_ENTROPY = 4096


class Machine:
    """The guest as a whole; what ``Configure`` needs is looked up and opened beforehand."""

    def __init__(self) -> None:
        self._random = os.open("/dev/urandom", os.O_RDWR | os.O_CLOEXEC)
        version = ".".join(str(n) for n in sys.version_info[:3])
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        self._facts = (os.uname().release, version, memory, os.cpu_count() or 1)
        self._machine_id = -1

    def open_files(self) -> None:
        """Open what is written after every start."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        self._machine_id = os.open("/etc/machine-id", flags, 0o444)

    def add_entropy(self, data: bytes) -> None:
        """Credit random bytes of the host to the kernel's pool and reseed from it (random(4))."""
        if len(data) > _MAX_ENTROPY:
            raise InvalidInput("too much entropy", why=f"{len(data)} bytes")
        head = (len(data) * 8).to_bytes(4, "little") + len(data).to_bytes(4, "little")
        ioctl(self._random, _RNDADDENTROPY, head + data)
        ioctl(self._random, _RNDRESEEDCRNG)

    def set_clock(self, realtime_ns: int) -> None:
        """Step the clock."""
        time.clock_settime_ns(time.CLOCK_REALTIME, realtime_ns)

    def set_names(self, hostname: str, machine_id: str) -> None:
        """Set the host name and /etc/machine-id."""
        if hostname:
            syscalls.sethostname(hostname)
        if machine_id:
            os.pwrite(self._machine_id, machine_id.encode() + b"\n", 0)

    def describe(self) -> tuple[str, str, int, int]:
        """Kernel release, Python version, memory in bytes, processors; as the agent began."""
        return self._facts

    def memory(self) -> tuple[int, int]:
        """Total and available memory in bytes (/proc/meminfo)."""
        with open("/proc/meminfo", "rb", buffering=0) as file:
            lines = file.read(8192).splitlines()
        found = {line.split(b":")[0]: line.split()[1] for line in lines if b" kB" in line}
        return int(found[b"MemTotal"]) << 10, int(found[b"MemAvailable"]) << 10

    def forget_files(self) -> None:
        """Let go of inodes that nobody uses (Documentation/admin-guide/sysctl/vm.rst)."""
        with open("/proc/sys/vm/drop_caches", "wb", buffering=0) as file:
            file.write(b"2")

    def power_off(self) -> None:
        """Write everything back and switch the VM off."""
        os.sync()
        syscalls.reboot(syscalls.RB_POWER_OFF)
