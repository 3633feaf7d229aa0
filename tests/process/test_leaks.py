"""The watch over what tests leave behind does see it."""

import os
import signal
import socket
import subprocess
import threading

from support import leaks


def test_an_orphan_is_seen_and_its_zombie_reaped():
    """A process whose parent has gone counts as ours until it is dead; its zombie does not."""
    before = leaks.mine([], pure=True)
    script = "sleep 60 >/dev/null 2>&1 & echo $!"
    pid = int(subprocess.run(["/bin/sh", "-c", script], stdout=subprocess.PIPE, check=True).stdout)
    new = leaks.mine([], pure=True) - before
    assert new == {f"process {pid} sleep 60"}
    os.kill(pid, signal.SIGKILL)
    assert leaks.left(before, [], pure=True) == []
    assert not os.path.exists(f"/proc/{pid}")


def test_descriptors_and_threads_are_seen():
    """An open socket and a living thread are named."""
    before = leaks.mine([], pure=True)
    gate = threading.Event()
    thread = threading.Thread(target=gate.wait, name="waiter")
    thread.start()
    with socket.socket() as held:
        new = leaks.mine([], pure=True) - before
        assert {line.split()[0] for line in new} == {"thread", "descriptor"}
        assert any(f"descriptor {held.fileno()} socket:" in line for line in new)
    gate.set()
    thread.join()
    assert leaks.left(before, [], pure=True) == []
