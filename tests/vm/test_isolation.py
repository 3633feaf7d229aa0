"""Every process of a sandbox has what the table of docs/design/isolation.md says, and no more."""

import os
import time

import pytest

from support.bundle import Bundle
from support.isolation import COLUMNS, check, facts, kind_of, rows, status
from support.vm import IMAGE


@pytest.fixture
def sandbox(kata, directory):
    """A running container with a volume: its processes by the names of the page."""
    shared = f"{directory}/shared"
    os.mkdir(shared)
    with open(f"{shared}/seen", "w", encoding="utf-8") as file:
        file.write("x")
    client = kata.start("run", "--name", "box", "-v", f"{shared}:/v", IMAGE, "sleep", "1000")
    try:
        yield _processes(kata, client)
    finally:
        kata("rm", "-f", "box")
        client.communicate(timeout=30)


def _processes(kata, client) -> dict[str, int]:
    deadline = time.monotonic() + 120
    while not kata.json("ps", "--format", "json"):
        assert client.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)
    kata.wait_until("box", "running", 60)
    item = kata.inspect("box")
    supervisor = item["pid"]
    with open(f"/proc/{supervisor}/task/{supervisor}/children", encoding="ascii") as file:
        children = [int(word) for word in file.read().split()]
    [daemon] = [pid for pid in children if pid != item["vmm_pid"]]
    return {
        "kata run": client.pid, "supervisor": supervisor, "qemu": item["vmm_pid"],
        "virtiofsd": daemon,
    }  # fmt: skip


def test_every_process_is_as_the_table_says(sandbox, kata):
    """User, capabilities, namespaces, root, filter and descriptors, process by process."""
    assert set(rows()) == {*sandbox, "stand-in", "factory", "ready", "qemu with 9p"}
    places = {kata.state: "store", kata.data: "store"}
    for name, pid in sandbox.items():
        check(name, pid, {"seen"}, places)


def test_an_engine_s_stand_in_is_as_the_table_says(directory, prepared):
    """It has the namespaces that engines look for, the container's root, and no rights."""
    with Bundle(directory, prepared, "sleep", "1000") as bundle:
        pid = bundle.state()["pid"]
        row = rows()["stand-in"]
        found = facts(pid, set())
        assert {c: found[c] for c in COLUMNS if c != "root"} == {
            c: row[c] for c in COLUMNS if c != "root"
        }
        inside = os.stat(f"/proc/{pid}/root/bin/busybox")
        assert os.path.samestat(inside, os.stat(f"{bundle.path}/rootfs/bin/busybox"))
        assert os.listdir(f"/proc/{pid}/root/proc").count("1") == 1
        kinds = {kind_of(pid, number, {}) for number in os.listdir(f"/proc/{pid}/fd")}
        assert kinds <= set(row["descriptors"].split())
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            assert file.read().rstrip(b"\0") == b"sleep\x001000"


def test_virtual_machines_have_users_of_their_own(kata):
    """Two monitors run as two users, neither of them root."""
    uids = set()
    for name in ("one", "two"):
        kata.ok("run", "-d", "--name", name, IMAGE, "sleep", "1000")
        uids.add(status(kata.inspect(name)["vmm_pid"])["Uid"])
    assert len(uids) == 2
    assert not any(uid.startswith("0") for uid in uids)
    kata.ok("rm", "-f", "one", "two")


def test_the_container_is_confined_as_docker_confines_it(kata):
    """Docker's capabilities and a filter; what the filter and the device rules deny is denied."""
    script = (
        "grep -e CapEff -e Seccomp: /proc/self/status; mount -t tmpfs none /mnt 2>&1;"
        "unshare -m true 2>&1; mknod /tmp/d b 254 0 && dd if=/tmp/d count=1 2>&1"
    )
    out = kata("run", "--rm", IMAGE, "sh", "-c", script).stdout.decode()
    assert "CapEff:\t00000000a80425fb" in out
    assert "Seccomp:\t2" in out
    assert out.count("not permitted") + out.count("denied") >= 3
