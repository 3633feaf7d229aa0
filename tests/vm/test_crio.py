"""Pods of CRI-O: its words to conmon and to the runtime, with runc to prove the test."""

from __future__ import annotations

import json
import os
import tempfile

import pytest

from support.crio import Pod
from support.engines import CONFIGURATION
from support.host import need_tool
from support.place import Place
from support.source import CHECKOUT

SLEEP = ("sleep", "1000000")


@pytest.fixture(scope="module")
def place():
    """Namespaces for the pods."""
    need_tool("conmon")
    here = Place(tempfile.mkdtemp(prefix="kc-", dir="/tmp"))
    yield here
    here.close()


@pytest.fixture(params=["runc", "kata"])
def pod(place, own_rootfs, request):
    """A pod without containers; all that are made are removed."""
    runtime = need_tool("runc")
    if request.param == "kata":
        data = request.getfixturevalue("prepared")
        place.write(CONFIGURATION, f'[runtime]\ndata_root = "{data}"\n')
        runtime = f"{CHECKOUT}/bin/kata-runtime"
    made = Pod(place, runtime, own_rootfs, f"/run/{request.param}")
    containers = []
    container = made.container
    made.container = lambda *args, **changes: containers.append(container(*args, **changes)) or \
        containers[-1]  # fmt: skip
    yield made
    for each in containers:
        each.runtime("delete", "--force", each.id)
    made.unpin()


def up(pod, *args: str):
    """A container that runs."""
    made = pod.container(*(args or SLEEP))
    pid = made.create()
    assert made.state()["pid"] == pid
    assert made.state()["status"] == "created"
    made.ok("start", made.id)
    return made


def test_a_life(pod):
    """Created without a first container of the pod, started, asked, stopped, removed."""
    box = up(pod)
    assert box.state()["status"] == "running"
    assert box.exec_sync("sh", "-c", "hostname; cat /etc/resolv.conf; exit 3") == (
        3, "the-pod\nnameserver 192.0.2.53\n",
    )  # fmt: skip
    result = box.exec("sh", "-c", "cat; exit 4", input=b"through\n")
    assert (result.code, result.out) == (4, "through")
    box.ok("update", "--resources", "-", box.id, input=json.dumps({"cpu": {"shares": 512}}))
    box.ok("pause", box.id)
    assert box.state()["status"] == "paused"
    box.ok("resume", box.id)
    assert box.stop() == 137
    assert box.state()["status"] == "stopped"
    box.delete()
    assert box.runtime("state", box.id).returncode != 0


def test_output_and_exit_codes(pod):
    """What a container writes is in conmon's log, and its code in the exit file."""
    box = up(pod, "sh", "-c", "echo out; echo err >&2; exit 5")
    assert box.exit_code() == 5
    assert sorted(box.output().split()) == ["err", "out"]


def test_a_program_that_is_missing(pod):
    """The refusal reaches CRI-O with the words it shows to people."""
    with pytest.raises(AssertionError, match="no-such-program"):
        pod.container("no-such-program").create()


def test_containers_of_a_pod_share_a_machine(pod):
    """A second container has the first one's network and kernel; each may end alone."""
    first, second = up(pod), up(pod)
    boot = ("cat", "/proc/sys/kernel/random/boot_id")
    assert first.exec_sync(*boot) == second.exec_sync(*boot)
    serve = "nc -l -p 8000 -e echo hello >/dev/null 2>&1 &"
    assert first.exec_sync("sh", "-c", serve)[0] == 0
    asked = "for i in 1 2 3 4 5; do nc 127.0.0.1 8000 && break; sleep 1; done"
    assert second.exec_sync("sh", "-c", asked) == (0, "hello\n")
    assert first.stop() == 137
    first.delete()
    assert second.exec_sync("echo", "here") == (0, "here\n")
    assert first.id not in first.ok("list")
    again = up(pod)
    assert again.exec_sync(*boot) == second.exec_sync(*boot)
    for box in (second, again):
        assert box.stop() == 137
        box.delete()
    held = pod.place.run("sh", "-c", f"ls -A {pod.root} {pod.root}/names", check=False).stdout
    assert not set(held.split()) - {f"{pod.root}:", f"{pod.root}/names:", "names", "cache", "uids"}


def test_pods_are_apart(pod, place):
    """A container of another pod has another machine."""
    if pod.runtime.endswith("runc"):
        pytest.skip("containers of runc have the host's kernel")
    other = Pod(place, pod.runtime, pod.rootfs, pod.root)
    boot = ("cat", "/proc/sys/kernel/random/boot_id")
    mine, theirs = up(pod), up(other)
    try:
        assert mine.exec_sync(*boot) != theirs.exec_sync(*boot)
    finally:
        theirs.delete()
        other.unpin()
        os.sync()
