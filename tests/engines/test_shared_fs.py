"""Engines with a runtime whose QEMU serves the files of containers itself, by 9p."""

import os

import pytest

from support import engines
from support.engines import CONFIGURATION, IMAGE
from support.vm import DATA

SCRIPT = """\
echo word >/kept/file && chown 1000:1000 /kept/file && ln -s file /kept/link && mkdir -m 700 /kept/d
echo in the root >/root/file; cat /kept/link /root/file; mount | grep -c ' type 9p '
"""


@pytest.fixture
def nine(engine):
    """An engine with our runtime, which finds no daemon on its host."""
    if engine.runtime == "runc":
        pytest.skip("runc shares nothing")
    settings = f'[runtime]\ndata_root = "{DATA}"\n[hypervisor.qemu]\n'
    engine.place.write(CONFIGURATION, f'{settings}virtio_fs_daemon = "/nonexistent/virtiofsd"\n')
    yield engine
    engine.clear()
    engines.configure(engine.place, DATA)


def test_a_container_on_a_host_without_a_daemon(nine):
    """Root file system, volume, commands that are added, a restart, and what the engine copies."""
    name = nine.up("-v", "kept:/kept", IMAGE, "sleep", "1000")
    out = nine.sh(name, SCRIPT).splitlines()
    assert out[:2] == ["word", "in the root"]
    assert int(out[2]) >= 2
    assert nine.sh(name, "stat -c '%u %a' /kept/file /kept/d; hostname").split() == [
        "1000", "644", "0", "700", nine.inspect(name)["Id"][:12],
    ]  # fmt: skip
    nine.ok("cp", f"{name}:/root/file", f"{nine.place.directory}/copied")
    nine.ok("stop", "-t", "1", name)
    nine.ok("start", name)
    assert nine.sh(name, "cat /root/file /kept/link").splitlines() == ["in the root", "word"]
    refused = nine("run", "--rm", "-v", "kept:/kept:ro", IMAGE, "sh", "-c", "echo x >/kept/file")
    assert refused.code != 0
    assert "Read-only file system" in refused.err


def served() -> set[str]:
    """What virtual machines of this host serve by themselves."""
    found: set[str] = set()
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            found |= set(os.listdir(f"/proc/{pid}/root/shared"))
        except OSError:
            pass  # it has none, or has ended
    return found


def test_containers_of_a_pod_come_and_go(nine):
    """A second container finds what the first shares with it, and goes on when that is removed."""
    if nine.kind != "podman":
        pytest.skip("pods are Podman's")
    nine.ok("pod", "create", "--name", "pod", "--network", "none")
    nine.up("--pod", "pod", "-v", "kept:/kept", IMAGE, "sleep", "1000", name="first")
    nine.sh("first", "echo word >/kept/file; echo own >/root/own")
    first = served()
    nine.up("--pod", "pod", "-v", "kept:/there", IMAGE, "sleep", "1000", name="second")
    words = "cat /there/file; [ -e /root/own ] || echo another root; echo more >>/there/file"
    assert nine.sh("second", words).splitlines() == ["word", "another root"]
    assert nine.sh("first", "cat /kept/file").splitlines() == ["word", "more"]
    assert first < served()
    nine.end("first")
    left = {name for name in first - served() if name.endswith("-rootfs")}
    assert len(left) == 1  # and that of the pod's own container stays
    assert nine.sh("second", "cat /there/file").splitlines() == ["word", "more"]
    nine.ok("pod", "rm", "-f", "-t0", "pod")
