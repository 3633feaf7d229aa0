"""Calls that come twice, late or in a crowd: the codes that containerd takes for done."""

import os
import subprocess
import threading

import pytest

from kata.errors import AlreadyExists, InvalidInput, KataError, NotFound, WrongState
from kata.wire import containerd_metrics1, containerd_metrics2
from kata.wire import containerd_task as api
from kata.wire.containerd_types import Mount
from support.containerd import (
    KILL,
    Shim,
    finish,
    member,
    pod,
    process_spec,
    simple,
    until_end,
)  # fmt: skip
from support.cri import until
from support.host import need_tool


def test_what_is_asked_twice(containerd):
    """It is answered as the first time, or refused by a code that says how things are."""
    shim = simple(containerd, "box", "sleep", "1000")
    shim.of("Start", "box")
    with pytest.raises(WrongState, match="already running"):
        shim.of("Start", "box")
    for method in ("Pause", "Resume"):  # what is so already is refused, as by runc
        shim.of(method, "box")
        with pytest.raises(WrongState, match="container not"):
            shim.of(method, "box")
    for _ in range(2):
        shim.of("CloseIO", "box")
    added = api.ExecRequest(id="box", exec_id="more", spec=process_spec("sleep", "1000"))
    shim.call("Exec", added)
    with pytest.raises(AlreadyExists):
        shim.call("Exec", added)
    shim.of("Start", "box", "more")
    with pytest.raises(WrongState, match="started already"):
        shim.of("Start", "box", "more")
    with pytest.raises(WrongState, match="runs"):
        shim.of("Delete", "box", "more")
    shim.of("Kill", "box", "more", signal=KILL)
    assert [shim.of("Wait", "box", "more").exit_status for _ in range(2)] == [137, 137]
    with pytest.raises(NotFound, match="finished"):
        shim.of("Kill", "box", "more", signal=KILL)
    shim.of("Delete", "box", "more")
    for method in ("Delete", "State", "Start", "Kill", "Wait", "CloseIO", "ResizePty"):
        with pytest.raises(NotFound):
            shim.of(method, "box", "more")
    with pytest.raises(InvalidInput, match="id"):
        shim.call("Exec", api.ExecRequest(id="box", spec=process_spec("true")))
    finish(shim, "box")


def test_what_is_asked_after_the_end(containerd):
    """What has ended is told as often as asked, and is no longer there for anything else."""
    shim = pod(containerd)
    member(containerd, shim, "box", "sh", "-c", "exit 6")
    shim.of("Start", "box")
    ends = [shim.of("Wait", "box") for _ in range(2)]
    assert [end.exit_status for end in ends] == [6, 6]
    assert ends[0] == ends[1]
    state = shim.of("State", "box")
    assert (state.status, state.exit_status, state.exited_at) == (api.STOPPED, 6, ends[0].exited_at)
    # a containerd that restarts takes a task without pids for one that never was
    assert [item.pid for item in shim.of("Pids", "box").processes] == [state.pid]
    for method in ("Kill", "Stats"):
        with pytest.raises(NotFound):
            shim.of(method, "box")
    for method in ("Start", "Pause", "Resume", "Update", "ResizePty"):
        with pytest.raises(WrongState):
            shim.of(method, "box")
    with pytest.raises(WrongState):
        shim.of("Exec", "box", "more", spec=process_spec("true"))
    shim.of("CloseIO", "box")
    assert shim.of("Delete", "box").exit_status == 6
    for method in ("Delete", "State", "Start", "Pids", "Pause", "Kill", "Update", "Wait", "Stats"):
        with pytest.raises(NotFound):
            shim.of(method, "box")
    assert shim.of("Connect", "box").task_pid == 0
    for _ in range(2):
        shim.of("Shutdown", "box")  # the pod's sandbox is there
    assert shim.of("State", "pod").status == api.RUNNING
    finish(shim, "pod")


def test_starts_are_told_before_ends(containerd):
    """Of processes that end at once, many at the same time, in the order of their lives."""
    shim = pod(containerd)
    member(containerd, shim, "box", "sleep", "1000")
    shim.of("Start", "box")

    def life(number: int) -> None:
        name = f"e{number}"
        shim.of("Exec", "box", name, spec=process_spec("true"))
        shim.of("Start", "box", name)
        shim.of("Wait", "box", name)
        shim.of("Delete", "box", name)

    threads = [threading.Thread(target=life, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    for number in range(4):
        member(containerd, shim, f"c{number}", "true")
        shim.of("Start", f"c{number}")
        shim.of("Wait", f"c{number}")
        shim.of("Delete", f"c{number}")
        containerd.events.wait_for("/tasks/delete", f"c{number}")
        told = [topic.rpartition("/")[2] for topic in containerd.events.topics(f"c{number}")]
        assert told == ["create", "start", "exit", "delete"]
    until(lambda: _about(containerd, "delete") >= 16, 20, "all events")
    for number in range(16):
        told = [
            topic.rpartition("/")[2] for topic, event in list(containerd.events.seen)
            if f"e{number}" in (getattr(event, "exec_id", ""), getattr(event, "id", ""))
        ]  # fmt: skip
        assert told == ["exec-added", "exec-started", "exit", "delete"]
    finish(shim, "box")
    finish(shim, "pod")


def _about(containerd, kind):
    """How many events of a kind are about the box."""
    return containerd.events.topics("box").count(f"/tasks/{kind}")


@pytest.mark.parametrize("kind", ["bind", "erofs"])
def test_other_root_file_systems(containerd, kind, tmp_path):
    """A directory is bound and written to; a disk image that is read-only stays so."""
    if kind == "bind":
        root = Mount(type="bind", source=containerd.rootfs, options=["rbind", "rw"])
    else:
        image = f"{tmp_path}/root.erofs"
        command = [need_tool("mkfs.erofs"), image, containerd.rootfs]
        subprocess.run(command, check=True, capture_output=True)
        root = Mount(type="erofs", source=image, options=["ro", "loop"])
    path, reader = containerd.fifo("out")
    words = "echo it >/kept && echo written; sed -n '/ \\/ /p' /proc/mounts"
    shim = simple(containerd, "box", "sh", "-c", words, rootfs=root, stdout=path)
    shim.of("Start", "box")
    assert shim.of("Wait", "box").exit_status == 0
    said = until_end(reader).split()
    assert (said[0] == b"written") == (kind == "bind")
    assert (kind.encode() in said) == (kind == "erofs")
    finish(shim, "box")
    assert os.path.exists(f"{containerd.rootfs}/kept") == (kind == "bind")


def test_a_disk_s_traffic_is_counted(containerd, tmp_path):
    """Statistics of a container on a disk of its own: what it read and wrote, and how often."""
    disk = f"{tmp_path}/root.ext4"
    subprocess.run(
        ["mke2fs", "-q", "-t", "ext4", "-d", containerd.rootfs, disk, "48M"], check=True
    )
    path, reader = containerd.fifo("out")
    words = "head -c 4000000 /dev/urandom >/big; sync; echo ready; exec sleep 1000"
    shim = simple(
        containerd, "box", "sh", "-c", words, rootfs=Mount(type="ext4", source=disk), stdout=path
    )
    shim.of("Start", "box")
    until(lambda: _line(reader), 60, "what it writes")
    stats = shim.of("Stats", "box").stats
    kinds = {m.KIND: m for m in (containerd_metrics1, containerd_metrics2)}
    found = kinds[stats.type_url].Metrics.decode(stats.value)
    if stats.type_url == containerd_metrics2.KIND:
        written = sum(row.wbytes for row in found.io.usage)
        often = sum(row.wios for row in found.io.usage)
    else:
        rows = found.blkio.io_service_bytes_recursive
        written = sum(row.value for row in rows if row.op == "Write")
        rows = found.blkio.io_serviced_recursive
        often = sum(row.value for row in rows if row.op == "Write")
    assert 4_000_000 <= written < 40_000_000
    assert 0 < often < 10_000
    os.close(reader)
    finish(shim, "box")


def _line(fd):
    try:
        return os.read(fd, 100)
    except BlockingIOError:
        return b""


def test_as_cri_o_starts_it(containerd):
    """Its runtime type "vm": no address of containerd's, an empty one for events; all is quiet."""
    path = containerd.bundle("box", "sh", "-c", "echo said; exit 3")
    os.mkfifo(f"{path}/log")
    log = os.open(f"{path}/log", os.O_RDONLY | os.O_NONBLOCK)
    flags = ("-namespace", "default", "-address", "", "-publish-binary", "/usr/bin/crio")
    done = subprocess.run(
        [containerd.program, *flags, "-id", "box", "start"], cwd=path, check=True,
        env={**containerd.env, "TTRPC_ADDRESS": "", "GOMAXPROCS": "2"}, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=280,
    )  # fmt: skip
    assert done.stdout.startswith(b"unix:///")
    assert len(done.stdout.split()) == 1
    shim = Shim(done.stdout.decode())
    out, reader = containerd.fifo("out")
    containerd.create(shim, "box", stdout=out)
    shim.of("Start", "box")
    assert shim.of("Wait", "box").exit_status == 3
    assert until_end(reader) == b"said\n"
    assert shim.of("Delete", "box").exit_status == 3
    pid = shim.of("Connect", "box").shim_pid
    with pytest.raises(KataError):
        shim.of("State", "box")
    shim.of("Shutdown", "box")
    until(lambda: _gone(pid), 20, "the end of the shim")
    assert not os.path.exists(done.stdout.decode().removeprefix("unix://"))
    assert containerd.events.seen == []
    os.close(log)
    containerd.made.remove("box")


def _gone(pid):
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
            return file.read().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True
