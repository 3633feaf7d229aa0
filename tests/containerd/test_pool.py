"""Pods and tasks whose shim finds a ready sandbox: nothing differs but the time it takes."""

from __future__ import annotations

import pytest

from support.cri import until
from support.isolation import status
from support.pool import serving_in

PAGE = "mkdir /www; echo page >/www/index.html; exec httpd -f -h /www -p 80"


@pytest.fixture
def pool(containerd, runtime, kept):
    """A pool of one in the daemon's place."""
    if runtime == "runc":
        pytest.skip("runc has no pool")
    with serving_in(containerd.place, 1) as serving:
        yield serving


def test_a_pod(pool, make_pod):
    """Two containers of one pod: addresses, exec, shared memory, one that comes later, the end."""
    [member] = pool.ready()
    pod = make_pod()
    assert member not in pool.ready()
    pod.up("one", "sh", "-c", PAGE)
    pod.up("two", "sleep", "1000")
    until(lambda: pod.exec("two", "wget", "-qO-", f"http://{pod.ip}/").out == "page")
    pod.sh("one", "echo there >/dev/shm/x")
    assert pod.sh("two", "cat /dev/shm/x") == "there"
    assert pod.ip in pod.sh("two", "ip -4 -o addr show eth0")
    pod.end()


def test_a_task(pool, ctr):
    """ctr run: the task's pid is the member's."""
    [member] = pool.ready()
    ctr.up("sleep", "1000", name="box")
    [row] = [line.split() for line in ctr.ok("task", "ls").splitlines()[1:]]
    assert int(status(int(row[1]))["Tgid"]) == member
    ctr.end("box")
    assert ctr.run("sh", "-c", "exit 7").code == 7
