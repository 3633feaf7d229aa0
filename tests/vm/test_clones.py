"""Machines restored from one template share no secrets, and know the time."""

import concurrent.futures
import time

from support.vm import IMAGE

SCRIPT = (
    "head -c 32 /dev/urandom | sha256sum; cat /proc/sys/kernel/random/boot_id;"
    "cat /proc/sys/kernel/random/uuid; cat /etc/machine-id"
)


def _facts(kata) -> list[str]:
    return kata.ok("run", "--rm", IMAGE, "sh", "-c", SCRIPT).splitlines()


def test_two_clones_differ(kata):
    """Random numbers, boot ids and machine ids of three clones are all different."""
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        clones = list(pool.map(_facts, [kata] * 3))
    for index in range(4):
        values = {facts[index] for facts in clones}
        assert len(values) == 3, f"line {index} is shared: {values}"
        assert all(values)


def test_the_clock_is_right(kata):
    """A clone's clock is the host's to a tenth of a second, a second after its start."""
    script = "while read line; do touch /s/t; stat -c %y /s/t; done"
    process = kata.start("run", "--rm", "-i", "--tmpfs", "/s", IMAGE, "sh", "-c", script)
    time.sleep(2)
    best = 9.0
    for _ in range(5):
        begin = time.time()
        process.stdin.write(b"now\n")
        process.stdin.flush()
        line = process.stdout.readline().decode()
        end = time.time()
        guest = _seconds(line)
        # the guest's time lies between the two if the clocks agree
        best = min(best, max(begin - guest, guest - end, 0.0))
    process.communicate(timeout=30)
    assert best <= 0.1


def _seconds(line: str) -> float:
    """``2026-01-02 03:04:05.123456789 +0000`` as seconds since the epoch."""
    import calendar

    day, clock = line.split()[:2]
    whole, _, part = clock.partition(".")
    parsed = time.strptime(f"{day} {whole}", "%Y-%m-%d %H:%M:%S")
    return calendar.timegm(parsed) + float(f"0.{part or 0}")
