"""Standard streams: byte-exact, in order, in any amount, at the reader's pace."""

import hashlib
import os
import subprocess
import time

import pytest

from support.vm import IMAGE


def _sum(kata, size: int, timeout: float) -> None:
    """Send random bytes through a container's sha256sum and compare."""
    process = kata.start("run", "--rm", "-i", IMAGE, "sha256sum", stderr=None)
    digest = hashlib.sha256()
    chunk = 1 << 20
    for _ in range(size // chunk):
        data = os.urandom(chunk)
        digest.update(data)
        process.stdin.write(data)
    out, _ = process.communicate(timeout=timeout)
    assert process.returncode == 0
    assert out.split()[0].decode() == digest.hexdigest()


def test_64_mib_in(kata):
    """What goes in is what the process reads: 64 MiB of random bytes have the right digest."""
    _sum(kata, 64 << 20, 120)


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_a_gibibyte_in(kata):
    """The same for a gibibyte."""
    _sum(kata, 1 << 30, 600)


def test_64_mib_out(kata):
    """What the process writes is what comes out, and ends where it ends."""
    script = "head -c 67108864 /dev/urandom > /tmp/f; sha256sum < /tmp/f >&2; cat /tmp/f"
    process = kata.start("run", "--rm", IMAGE, "sh", "-c", script)
    digest = hashlib.sha256()
    count = 0
    while data := process.stdout.read(1 << 16):
        digest.update(data)
        count += len(data)
    _, err = process.communicate(timeout=60)
    assert count == 64 << 20
    assert err.split()[0].decode() == digest.hexdigest(), err


def test_in_and_out_at_once(kata):
    """A gigabyte-sized echo would deadlock if the two directions waited for each other."""
    data = os.urandom(16 << 20)
    assert kata("run", "--rm", "-i", IMAGE, "cat", input=data).stdout == data


def test_output_before_the_end_is_not_lost(kata):
    """The last bytes written before exit arrive, on both streams, every time."""
    script = "head -c 300000 /dev/zero; echo end; (head -c 300000 /dev/zero; echo end) >&2; exit 3"
    for _ in range(5):
        result = kata("run", "--rm", IMAGE, "sh", "-c", script)
        assert result.code == 3
        assert (len(result.stdout), len(result.stderr)) == (300004, 300004)
        assert result.stdout.endswith(b"end\n")
        assert result.stderr.endswith(b"end\n")


def test_a_slow_reader_slows_the_writer(kata):
    """Output nobody reads stops the process rather than filling memory, and loses nothing."""
    script = "i=0; while [ $i -lt 400 ]; do head -c 10000 /dev/zero; i=$((i+1)); echo $i >&2; done"
    process = kata.start("run", "--rm", "--name", "slow", IMAGE, "sh", "-c", script)
    assert process.stderr.readline() == b"1\n"
    os.set_blocking(process.stderr.fileno(), False)
    time.sleep(3)
    written = (process.stderr.read() or b"").split()
    assert len(written) * 10000 < 2 << 20
    os.set_blocking(process.stderr.fileno(), True)
    out, _ = process.communicate(timeout=60)
    assert len(out) == 4000000


def test_one_stream_does_not_hold_up_the_other(kata):
    """While stdout is not read, stderr still arrives."""
    script = "head -c 10000000 /dev/zero & sleep 0.2; echo here >&2; wait"
    process = kata.start("run", "--rm", IMAGE, "sh", "-c", script)
    assert process.stderr.readline() == b"here\n"
    out, _ = process.communicate(timeout=60)
    assert len(out) == 10000000


def test_a_reader_that_went_away(kata):
    """``kata run … | head -1`` ends: the process gets a broken pipe."""
    process = kata.start("run", "--rm", IMAGE, "yes", stderr=subprocess.PIPE)
    assert process.stdout.readline() == b"y\n"
    process.stdout.close()
    process.stdout = None
    _, err = process.communicate(timeout=30)
    assert process.returncode in (141, 1, 0), err


def test_end_of_input_arrives(kata):
    """Closing standard input ends what reads it, and output still comes."""
    process = kata.start("run", "--rm", "-i", IMAGE, "sh", "-c", "cat; echo after")
    process.stdin.write(b"one\n")
    process.stdin.flush()
    assert process.stdout.readline() == b"one\n"
    out, _ = process.communicate(timeout=30)
    assert out == b"after\n"


def test_output_that_cannot_be_written(kata):
    """A full disk is said once, and is a failure where the process itself had none."""
    kata.ok("run", "-d", "--name", "one", IMAGE, "sleep", "300")
    for verb, code, script in (
        (("run", "--rm", IMAGE), 125, "echo a"),
        (("exec", "one"), 125, "echo a"),
        (("run", "--rm", IMAGE), 3, "echo a; exit 3"),
    ):
        with open("/dev/full", "wb") as full:
            process = kata.start(*verb, "sh", "-c", script, stdout=full)
        _, said = process.communicate(timeout=60)
        assert said == b"kata: cannot write the output: No space left on device\n"
        assert process.returncode == code
