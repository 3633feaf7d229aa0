"""Every process of a sandbox has what the table of docs/design/isolation.md says, and no more."""

import os
import re
import stat
import time

import pytest

from kata.linux.capabilities import NAMES
from support.bundle import Bundle
from support.source import CHECKOUT
from support.vm import IMAGE

PAGE = f"{CHECKOUT}/docs/design/isolation.md"
KINDS = ("mnt", "pid", "net", "ipc", "uts", "cgroup", "user")
COLUMNS = ("user", "capabilities", "namespaces", "root", "seccomp", "no new privileges")


def rows() -> dict[str, dict[str, str]]:
    """The first table of the page: process -> column -> cell."""
    with open(PAGE, encoding="utf-8") as file:
        lines = [line.strip() for line in file]
    start = next(i for i, line in enumerate(lines) if line.startswith("| process | user"))
    table = []
    for line in lines[start:]:
        if not line.startswith("|"):
            break
        table.append([cell.strip() for cell in line.strip("|").split("|")])
    head, _, *body = table
    return {row[0]: dict(zip(head, row, strict=True)) for row in body}


def status(pid: int) -> dict[str, str]:
    """/proc/PID/status."""
    with open(f"/proc/{pid}/status", encoding="utf-8") as file:
        return {key: value.strip() for key, _, value in (line.partition(":") for line in file)}


def capabilities(fields: dict[str, str]) -> str:
    """The names of all that is in any set but the bounding one."""
    found = 0
    for name in ("CapPrm", "CapEff", "CapInh", "CapAmb"):
        found |= int(fields[name], 16)
    if not found:
        return "none"
    if found == int(status(os.getpid())["CapPrm"], 16):
        return "all"
    return " ".join(sorted(name for bit, name in enumerate(NAMES) if found >> bit & 1))


def namespaces(pid: int) -> str:
    """Those that are not the test's."""
    own = [
        kind for kind in KINDS
        if os.readlink(f"/proc/{pid}/ns/{kind}") != os.readlink(f"/proc/self/ns/{kind}")
    ]  # fmt: skip
    return " ".join(own) or "none"


def root(pid: int, shared: set[str]) -> str:
    """What a process sees below /."""
    if os.path.samestat(os.stat(f"/proc/{pid}/root"), os.stat("/")) and namespaces(pid) == "none":
        return "host"
    files = {
        os.path.join(path, name)
        for path, _, names in os.walk(f"/proc/{pid}/root") for name in names
    }  # fmt: skip
    if not files:
        return "empty"
    return "share" if {os.path.basename(f) for f in files} <= shared else f"files: {sorted(files)}"


def facts(pid: int, shared: set[str]) -> dict[str, str]:
    """A row as the kernel has it."""
    fields = status(pid)
    uids = set(fields["Uid"].split() + fields["Gid"].split())
    return {
        "user": "root" if uids == {"0"} else "sandbox" if len(uids) == 1 else f"{uids}",
        "capabilities": capabilities(fields),
        "namespaces": namespaces(pid),
        "root": root(pid, shared),
        "seccomp": "filter" if fields["Seccomp"] == "2" else "none",
        "no new privileges": "yes" if fields["NoNewPrivs"] == "1" else "no",
    }


def kind_of(pid: int, number: str, places: dict[str, str]) -> str:
    """What a descriptor is, in the words of the page."""
    path = f"/proc/{pid}/fd/{number}"
    text = os.readlink(path)
    for pattern, kind in (
        (r"/dev/null|/null", "null"), (r"pipe:", "pipe"), (r"socket:", "socket"),
        (r"anon_inode:\[?eventfd", "eventfd"), (r"anon_inode:\[?eventpoll", "epoll"),
        (r"anon_inode:\[?signalfd", "signalfd"), (r"anon_inode:\[?timerfd", "timerfd"),
        (r"(anon_inode:\[?)?pidfd", "pidfd"), (r"/dev/kvm|anon_inode:kvm", "kvm"),
        (r".*templates/.*/memory$|/memfd:memory", "memory"), (r".*templates/.*/state$", "state"),
        (r"/dev/net/tun", "tap"), (r"/dev/vhost-net", "vhost"),
        (r".*\.erofs$", "layers"), (r"(mnt|net|pid|ipc|uts|cgroup):\[", "namespace"),
    ):  # fmt: skip
        if re.match(pattern, text):
            return kind
    for place, kind in places.items():
        if text.startswith(place):
            return kind
    if number in ("0", "1", "2"):
        return "stdio"
    if re.fullmatch(r"/\d+(/.*)?|/proc/.*", text):
        return "proc"
    return "share" if stat.S_ISDIR(os.stat(path).st_mode) else f"unknown: {text}"


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
    table = rows()
    assert set(table) == {*sandbox, "stand-in"}
    places = {kata.state: "store", kata.data: "store"}
    for name, pid in sandbox.items():
        row = dict(table[name])
        if row["capabilities"].startswith("CAP_"):
            row["capabilities"] = " ".join(sorted(row["capabilities"].split()))
        assert facts(pid, {"seen"}) == {c: row[c] for c in COLUMNS}, name
        found = {kind_of(pid, number, places) for number in os.listdir(f"/proc/{pid}/fd")}
        assert found <= set(row["descriptors"].split()), (name, found)


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
