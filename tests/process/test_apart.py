"""Work in a forked process: what happens to it and around it when its parent is told to end."""

import subprocess
import sys

import pytest

from support.source import SOURCE

PROGRAM = f"""
import signal, sys, time
sys.path.insert(0, {SOURCE!r})
from kata.runtime.freeze import apart

for number in (signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, signal.SIG_DFL)  # whoever runs the tests may have them ignored

def work():
    print("at work", flush=True)
    time.sleep(60)

try:
    apart(work)
finally:
    print("cleaned up", flush=True)
"""


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_what_was_begun_is_taken_back(name):
    """A signal ends the work, lets whoever asked for it clean up, and is in the exit code."""
    import signal

    number = getattr(signal, name)
    with subprocess.Popen([sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"at work\n"
        process.send_signal(number)
        assert process.stdout.read() == b"cleaned up\n"  # its end: the forked one is gone too
        assert process.wait(10) == 128 + number
