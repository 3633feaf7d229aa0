#!/usr/bin/env python3
"""What a pod costs its node beside its containers: the figures of a Kubernetes runtime class.

    bench/overhead.py --data-root DIR          (as root; DIR has a guest image)

Memory: the resident sizes of all of a sandbox's processes (nothing counted as shared, for a pod
may be the only one on its node), less what its container itself has filled; with little and with
much of the machine's memory in use. Processor: what those processes used beside the virtual
processor itself, idle and while output and files pass through them.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time

sys.path[1:1] = [os.path.abspath(f"{__file__}/../../{room}") for room in ("tests", "src")]

import memory  # noqa: E402

from support.bundle import Bundle  # noqa: E402

FILLED_MIB = (0, 50, 200)  # one after the other
IDLE_S, BUSY_S = 20.0, 10.0
SLEEP = ("sleep", "1000000")
BUSY = {
    "computing": "while :; do :; done",
    "output": "while :; do cat /bin/busybox; done",
    "files": "while :; do cp /bin/busybox /root/x; cat /root/x >/dev/null; done",
}
MIB = 1 << 20
READERS: list[subprocess.Popen] = []


def processes(bundle: Bundle) -> dict[str, list[int]]:
    """The processes of the sandbox, by what they are."""
    standin = bundle.state()["pid"]
    found: dict[str, list[int]] = {"stand-in": [standin]}
    for name in os.listdir("/proc"):
        if not name.isdecimal():
            continue
        try:
            with open(f"/proc/{name}/environ", "rb") as file:
                ours = os.fsencode(bundle.settings) in file.read()
        except OSError:
            continue
        for role, pid in memory.roles(int(name)) if ours else ():
            if role == "vmm":
                found["supervisor"] = [int(name)]
            if role != "supervisor" and pid != standin:
                found.setdefault(role, []).append(pid)
    return found


def resident(found: dict[str, list[int]], field: str = "Rss") -> dict[str, float]:
    """MiB of each."""
    return {role: round(sum(memory.of(pid)[field] for pid in pids), 1)
            for role, pids in found.items()}  # fmt: skip


def used(found: dict[str, list[int]]) -> dict[str, float]:
    """Seconds of processor had so far: by the machine's own, the busiest thread of QEMU, and else.

    What the guest counts says little here: its clock runs on while others have the processor.
    """
    threads = {}
    for role, pids in found.items():
        for pid in pids:
            for thread in os.listdir(f"/proc/{pid}/task"):
                with open(f"/proc/{pid}/task/{thread}/stat", encoding="utf-8") as file:
                    fields = file.read().rpartition(")")[2].split()
                ticks = int(fields[11]) + int(fields[12])
                threads[role, thread] = ticks / os.sysconf("SC_CLK_TCK")
    machine = max(value for (role, _), value in threads.items() if role == "vmm")
    return {"machine": machine, "beside": sum(threads.values()) - machine}


def inside(bundle: Bundle) -> float:
    """MiB that the guest charges the container with."""
    stats = json.loads(bundle.ok("events", "--stats", "box"))["data"]
    return stats["memory"]["usage"]["usage"] / MIB


def overhead(data: str) -> dict[str, object]:
    """All of it, for one sandbox of the configured shape."""
    rows: dict[str, object] = {}
    with tempfile.TemporaryDirectory(prefix="kata-overhead-") as directory:
        with Bundle(directory, data, *SLEEP, root={"path": "rootfs"}) as bundle:
            for mib in FILLED_MIB:
                before = inside(bundle)
                script = f"dd if=/dev/zero bs={mib}M count=1 | sleep 1000000"  # dd holds its block
                detached(bundle, script if mib else "true")
                while mib and inside(bundle) < before + mib * 0.9:
                    time.sleep(memory.SETTLE_S)
                time.sleep(memory.SETTLE_S)
                found = processes(bundle)
                sizes, own = resident(found), inside(bundle)
                beside = round(sum(sizes.values()) - own, 1)
                rows[f"memory, {mib} MiB filled"] = sizes | {
                    "container": round(own, 1), "beside": beside,
                }  # fmt: skip
            rows["processor, idle"] = busy(bundle, IDLE_S)
            for name, script in BUSY.items():
                detached(bundle, f"echo $$ >/tmp/p; {script}")
                rows[f"processor, {name}"] = busy(bundle, BUSY_S)
                bundle.ok("exec", "box", "sh", "-c", "kill -9 $(cat /tmp/p)")
    return rows


def detached(bundle: Bundle, script: str) -> None:
    """Start a further process in the container; a reader that ends with it takes its output."""
    reader = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    bundle.ok("exec", "--detach", "box", "sh", "-c", script, out=reader.stdin)
    reader.stdin.close()
    READERS.append(reader)


def busy(bundle: Bundle, seconds: float) -> dict[str, float]:
    """Processors used, as means over a time; and what is beside for each that the machine has."""
    found = processes(bundle)
    before = used(found)
    time.sleep(seconds)
    rates = {name: (value - before[name]) / seconds for name, value in used(found).items()}
    ratio = {"beside each": rates["beside"] / rates["machine"]} if rates["machine"] > 0.05 else {}
    return {name: round(value, 3) for name, value in (rates | ratio).items()}


def main() -> None:
    """Measure, and print it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data-root", default="/var/lib/kata", help="where the guest image is")
    print(json.dumps(overhead(parser.parse_args().data_root), indent=1))
    for reader in READERS:
        reader.wait()


if __name__ == "__main__":
    main()
