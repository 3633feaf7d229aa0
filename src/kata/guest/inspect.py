"""What the guest's /proc says about the processes of a container."""

from __future__ import annotations

import os
import time

from kata.wire.agent_api import ProcessInfo

_TICK = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_MAX_COMMAND = 4096
_STATES = {
    "R": "running", "S": "sleeping", "D": "disk-sleep", "T": "stopped", "t": "stopped",
    "Z": "zombie", "I": "idle",
}  # fmt: skip


def processes(pids: list[int], exec_ids: dict[int, str]) -> list[ProcessInfo]:
    """What there is to say about these; those that ended meanwhile are left out."""
    boot_ns = time.time_ns() - time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    found = (_process(pid, exec_ids.get(pid, ""), boot_ns) for pid in sorted(pids))
    return [info for info in found if info is not None]


def _process(pid: int, exec_id: str, boot_ns: int) -> ProcessInfo | None:
    try:
        stat = _read(f"/proc/{pid}/stat")
        uid = os.stat(f"/proc/{pid}").st_uid
        command = _read(f"/proc/{pid}/cmdline")[:_MAX_COMMAND]
        status = _read(f"/proc/{pid}/status")
    except OSError:
        return None
    name, _, rest = stat.partition("(")[2].rpartition(")")
    fields = rest.split()  # from field 3 of proc_pid_stat(5) on
    for line in status.splitlines():
        if line.startswith("Uid:"):
            uid = int(line.split()[2])
    return ProcessInfo(
        pid=pid, parent=int(fields[1]), uid=uid,
        state=_STATES.get(fields[0], "unknown"),
        command=command.rstrip("\0").replace("\0", " ") or f"[{name}]",
        cpu_ns=(int(fields[11]) + int(fields[12])) * _TICK,
        rss_bytes=int(fields[21]) * _PAGE, exec_id=exec_id,
        started_at_ns=boot_ns + int(fields[19]) * _TICK,
    )  # fmt: skip


def _read(path: str) -> str:
    with open(path, "rb", buffering=0) as file:
        return file.read(_MAX_COMMAND * 2).decode("utf-8", "replace")
