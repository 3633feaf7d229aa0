"""Containers made by the real agent, with the kernel's namespaces of this machine."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import time

import pytest

from kata import errors
from kata.wire import agent_api as api
from support.agent import read_all


def lines(data: bytes) -> list[str]:
    return data.decode().splitlines()


def root_of(spec: dict) -> bytes:
    """A specification whose process is not known yet."""
    return json.dumps({key: value for key, value in spec.items() if key != "process"}).encode()


@pytest.mark.parametrize("prepared", [False, True], ids=["fresh", "prepared"])
def test_the_container_is_confined_as_docker_does(guest, prepared):
    """Namespaces, root, mounts, devices and capabilities are Docker's, either way."""
    if prepared:
        guest.call("Prepare", api.PrepareRequest())
    script = (
        "hostname; echo $$; ls /; cut -d' ' -f5,6,9- /proc/self/mountinfo | sort;"
        "grep -e Cap -e NoNew /proc/self/status; cat /proc/self/cgroup; ls /dev;"
        "echo x > /proc/sys/vm/swappiness; cat /proc/kcore; ip addr show lo | grep -c UP; id"
    )
    out, err, end = guest.run("sh", "-c", script)
    text = lines(out)
    assert text[:2] == ["box", "1"]
    assert "CapEff:\t00000000a80425fb" in text
    assert "CapBnd:\t00000000a80425fb" in text
    assert "0::/" in text
    assert "1" in text[-2]
    assert "uid=0(root)" in text[-1]
    assert b"can't create /proc/sys/vm/swappiness: Read-only file system" in err
    points = [line.split()[0] for line in text if line.startswith("/")]
    wanted = {"/", "/dev", "/dev/mqueue", "/dev/pts", "/dev/shm", "/proc", "/sys"}
    assert wanted <= set(points)
    assert len([p for p in points if p == "/dev"]) == 1
    assert {"null", "zero", "full", "random", "urandom", "tty", "ptmx", "shm", "fd"} <= set(text)
    assert end.exit_code == 0


def test_prepared_and_fresh_containers_have_the_same_mounts(guest):
    """A prepared container cannot be told from a fresh one by its mounts."""
    script = "cut -d' ' -f4-6 /proc/self/mountinfo | sort; ls -la /dev | cut -c1-20,60-"
    root = guest.root()
    fresh = guest.run("sh", "-c", script, rootfs=root)[0]
    guest.call("Prepare", api.PrepareRequest())
    prepared = guest.run("sh", "-c", script, rootfs=root)[0]
    assert lines(prepared) == lines(fresh)


def test_a_container_with_a_prepared_root_is_like_a_fresh_one(guest):
    """What was made before the process was known cannot be told from what is made for it."""
    script = "cut -d' ' -f4-6 /proc/self/mountinfo | sort; ls -la /dev | cut -c1-20,60-; hostname"
    root = guest.root()
    fresh = guest.run("sh", "-c", script, rootfs=root)[0]
    guest.call("Prepare", api.PrepareRequest())
    spec = guest.spec("sh", "-c", script, rootfs=root)
    guest.call("Prepare", api.PrepareRequest(spec=root_of(spec)))
    out, _, end = guest.run(spec=spec)
    assert end.exit_code == 0
    assert lines(out) == lines(fresh)


def test_a_prepared_root_gives_way_to_another(guest):
    """A container with other files does not get the prepared root, nor does the next one."""
    guest.call("Prepare", api.PrepareRequest())
    spec = guest.spec("true")
    guest.call("Prepare", api.PrepareRequest(spec=root_of(spec)))
    other = guest.spec("sh", "-c", "echo other > /mark; cat /mark")
    assert guest.run(spec=other)[0] == b"other\n"
    assert guest.run("sh", "-c", "ls /mark", rootfs=spec["root"]["path"])[2].exit_code == 1


@pytest.mark.parametrize("prepared", [False, True], ids=["fresh", "prepared"])
def test_all_devices_of_a_host_leave_the_terminals_alone(guest, prepared):
    """A privileged container is given a node /dev/ptmx too; its own terminals stay its own."""
    if prepared:
        guest.call("Prepare", api.PrepareRequest())
    spec = guest.spec("sh", "-c", "readlink /dev/ptmx; stat -c %t:%T /dev/loop-control /dev/null")
    spec["linux"]["devices"] = [
        {"path": "/dev/ptmx", "type": "c", "major": 5, "minor": 2},
        {"path": "/dev/null", "type": "c", "major": 1, "minor": 3},
        {"path": "/dev/loop-control", "type": "c", "major": 10, "minor": 237},
    ]
    out, err, end = guest.run(spec=spec)
    assert (lines(out), err, end.exit_code) == (["pts/ptmx", "a:ed", "1:3"], b"", 0)


def test_a_bound_dev_is_left_as_it_is(guest, tmp_path):
    """Nothing is made in a /dev that is somebody's directory, as runc has it."""
    there = tmp_path / "dev"
    there.mkdir()
    for name in ("null", "loop-control"):
        (there / name).write_text(name)
    spec = guest.spec("cat", "/dev/null", "/dev/loop-control")
    spec["mounts"] = [
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {"destination": "/dev", "type": "bind", "source": str(there), "options": ["rbind", "rw"]},
    ]
    spec["linux"]["maskedPaths"] = []
    spec["linux"]["devices"] = [
        {"path": "/dev/loop-control", "type": "c", "major": 10, "minor": 237},
        {"path": "/dev/new", "type": "c", "major": 1, "minor": 3},
    ]
    out, err, end = guest.run(spec=spec)
    assert (out, err, end.exit_code) == (b"nullloop-control", b"", 0)
    assert sorted(os.listdir(there)) == ["loop-control", "null"]


def test_a_root_is_prepared_once(guest):
    """Without a parked container, or for a second time, there is a clear refusal."""
    spec = json.dumps(guest.spec("true")).encode()
    with pytest.raises(errors.WrongState, match="no parked container"):
        guest.call("Prepare", api.PrepareRequest(spec=spec))


def test_prepared_gives_way_to_other_wishes(guest):
    """What is staged and not asked for is not there; what differs is mounted as asked."""
    guest.call("Prepare", api.PrepareRequest())
    spec = guest.spec("sh", "-c", "df -k /dev/shm | tail -1; ls /dev/mqueue; cat /proc/timer_list")
    mounts = [m for m in spec["mounts"] if m["destination"] != "/dev/mqueue"]
    for mount in mounts:
        if mount["destination"] == "/dev/shm":
            mount["options"] = ["size=123k", "mode=1777"]
    spec["mounts"] = mounts
    spec["linux"]["maskedPaths"] = ["/proc/kcore"]
    out, _, _ = guest.run(spec=spec)
    assert " 124 " in lines(out)[0]
    assert len(out) > 200  # the timer list is readable


def test_exit_codes_signals_and_streams(guest):
    """Exit codes are the process's own; both output streams are apart; input arrives."""
    out, err, end = guest.run("sh", "-c", "cat; echo e >&2; exit 7", input=b"in")
    assert (out, err, end.exit_code) == (b"in", b"e\n", 7)


def test_large_data_in_and_out_is_exact(guest):
    """Megabytes through a container come back byte for byte."""
    data = os.urandom(3 << 20)
    out, _, _ = guest.run("cat", input=data)
    assert hashlib.sha256(out).digest() == hashlib.sha256(data).digest()


def test_output_before_the_exit_is_never_lost(guest):
    """What was written right before the exit arrives, pipes and terminals alike."""
    for terminal in (False, True):
        out, _, _ = guest.run("seq", "1", "20000", process={"terminal": terminal})
        assert lines(out)[-1] == "20000"
        assert len(lines(out)) == 20000


def test_signal_ends_a_process(guest):
    """A signal reaches the first process, and its number is reported."""
    guest.create("a", guest.spec("sleep", "100"))
    guest.start("a")
    guest.call("Signal", api.SignalRequest(container_id="a", signal=signal.SIGKILL))
    end = guest.wait("a")
    assert (end.exit_code, end.signal) == (137, 9)
    guest.delete("a")


@pytest.mark.parametrize(
    ("args", "error", "text"),
    [
        (["foo"], errors.CommandNotFound, 'exec: "foo": executable file not found in $PATH'),
        (["/x/y"], errors.CommandNotFound, 'exec: "/x/y": stat /x/y: no such file or directory'),
        (["/etc/passwd"], errors.CommandNotExecutable, 'exec: "/etc/passwd": permission denied'),
        (["/etc"], errors.CommandNotExecutable, 'exec: "/etc": permission denied'),
        ([""], errors.CommandNotFound, 'exec: "": executable file not found in $PATH'),
    ],
)
def test_programs_that_cannot_run_are_refused_at_create(guest, args, error, text):
    """The error names the program in the field's words, and nothing stays behind."""
    for _ in range(2):
        with pytest.raises(error) as caught:
            guest.create("a", guest.spec(*args))
        assert str(caught.value) == text
    with pytest.raises(errors.NotFound):
        guest.start("a")


def test_a_failing_execution_is_reported_by_start(guest):
    """A script whose interpreter is missing is refused when it is started."""
    root = guest.root()
    with open(f"{root}/bin/bad", "w", encoding="ascii") as file:
        file.write("#!/nowhere\n")
    os.chmod(f"{root}/bin/bad", 0o755)
    guest.create("a", guest.spec("bad", rootfs=root))
    with pytest.raises(errors.CommandNotFound, match="exec /bin/bad: no such file or directory"):
        guest.start("a")
    guest.delete("a")


def test_user_groups_umask_and_ambient_capabilities(guest):
    """An ordinary user has the groups, mask, home and ambient capabilities asked for."""
    sets = ("bounding", "permitted", "effective", "inheritable", "ambient")
    process = {
        "user": {"uid": 1000, "gid": 1000, "additionalGids": [5, 50], "umask": 0o77},
        "capabilities": {kind: ["CAP_NET_RAW"] for kind in sets},
        "cwd": "/made/here",
        "noNewPrivileges": True,
    }
    script = "id; umask; pwd; echo $HOME; grep -e Cap -e NoNew /proc/self/status"
    out, _, _ = guest.run("sh", "-c", script, process=process)
    text = lines(out)
    assert text[0].startswith("uid=1000(ann) gid=1000(ann)")
    assert "5(tty)" in text[0]
    assert "50(staff)" in text[0]
    assert text[1:4] == ["0077", "/made/here", "/home/ann"]
    assert [line.split()[1] for line in text[4:9]] == ["0000000000002000"] * 5
    assert text[9] == "NoNewPrivs:\t1"


def test_rlimits_sysctls_and_oom_score(guest):
    """Limits and namespaced kernel parameters are those asked for."""
    out, _, _ = guest.run(
        "sh", "-c",
        "ulimit -n; ulimit -Hn; cat /proc/sys/net/ipv4/ip_forward /proc/self/oom_score_adj",
        process={
            "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 77, "hard": 88}], "oomScoreAdj": 321
        },
        linux={"sysctl": {"net.ipv4.ip_forward": "1"}},
    )  # fmt: skip
    assert lines(out) == ["77", "88", "1", "321"]


def test_a_sysctl_of_the_whole_kernel_is_refused(guest):
    """A parameter that no namespace holds is an error that names it."""
    with pytest.raises(errors.InvalidInput, match=r'"vm\.swappiness" is not in a namespace'):
        guest.run("true", linux={"sysctl": {"vm.swappiness": "1"}})


def test_terminal(guest):
    """The terminal is the container's own, of the right size, controlling, and its console."""
    process = {"terminal": True, "consoleSize": {"height": 33, "width": 99}}
    script = "tty; stty size; echo to > /dev/console; sh -c 'echo c > /dev/tty'"
    out, _, end = guest.run("sh", "-c", script, process=process)
    text = [line.rstrip("\r") for line in lines(out)]
    assert text == ["/dev/pts/0", "33 99", "to", "c"]
    assert end.exit_code == 0


def test_resize(guest):
    """A new size of the terminal is what the process then sees."""
    guest.create("a", guest.spec("sh", "-c", "read x; stty size", process={"terminal": True}))
    out = guest.output("a")
    guest.start("a")
    guest.call("Resize", api.ResizeRequest(container_id="a", rows=12, columns=34))
    stream = guest.client.stream("WriteInput", api.StreamRequest(container_id="a", stream=0))
    stream.write(b"\n")
    seen = b""
    while data := out.read():
        seen += data
    assert b"12 34" in seen
    guest.wait("a")
    guest.delete("a")


def test_files_read_only_root_and_tmpfs(guest):
    """Small files have their modes, and go through symbolic links; the root can be read-only."""
    root = guest.root()
    os.symlink("/run", f"{root}/var/run")  # dangling: made inside the root
    out, err, _ = guest.run(
        "sh", "-c", "cat /etc/hosts; stat -c %a /var/run/a/b; ls -ld /run /scratch; touch /x",
        root={"path": root, "readonly": True},
        more_mounts=[{"destination": "/scratch", "type": "tmpfs", "source": "t", "options": []}],
        files=[
            api.File(path="/etc/hosts", content=b"127.0.0.1 me\n", mode=0o644),
            api.File(path="/var/run/a/b", content=b"", mode=0o600, readonly=True),
        ],
    )  # fmt: skip
    assert lines(out)[:2] == ["127.0.0.1 me", "600"]
    assert b"/x: Read-only file system" in err
    assert not os.path.exists("/run/a")


def test_a_mount_target_never_leaves_the_root(guest, directory):
    """Links in the image that point outside lead to places inside."""
    root = guest.root()
    os.mkdir(f"{directory}/outside")
    os.symlink(f"{directory}/outside", f"{root}/out")
    os.symlink("../../../../../..", f"{root}/up")
    mounts = [
        {"destination": f"/{name}/x", "type": "tmpfs", "source": "t", "options": ["size=1m"]}
        for name in ("out", "up")
    ]
    points = ("cut", "-d", " ", "-f5", "/proc/self/mountinfo")
    out, _, _ = guest.run(*points, rootfs=root, more_mounts=mounts)
    assert f"{directory}/outside/x" in lines(out)
    assert "/x" in lines(out)
    assert os.listdir(f"{directory}/outside") == []


def test_bind_mounts_with_options(guest, directory):
    """A volume is bound with its options, files and directories alike; propagation is set."""
    os.mkdir(f"{directory}/v")
    with open(f"{directory}/v/f", "w", encoding="ascii") as file:
        file.write("data")
    mounts = [
        {"destination": "/v", "type": "bind", "source": f"{directory}/v",
         "options": ["rbind", "ro", "nosuid", "rprivate"]},
        {"destination": "/one/f", "type": "bind", "source": f"{directory}/v/f",
         "options": ["bind", "noexec"]},
    ]  # fmt: skip
    script = (
        "cat /v/f /one/f; echo; echo x > /v/f; echo new > /one/f;"
        "grep -e ' /v ' -e ' /one/f ' /proc/self/mountinfo"
    )
    out, err, _ = guest.run("sh", "-c", script, more_mounts=mounts)
    text = lines(out)
    assert text[0] == "datadata"
    assert b"/v/f: Read-only file system" in err
    with open(f"{directory}/v/f", encoding="ascii") as file:
        assert file.read() == "new\n"
    assert " ro,nosuid" in text[1]
    assert "shared:" not in text[1]
    assert "master:" not in text[1]
    assert "noexec" in text[2]


def test_seccomp_with_and_without_no_new_privileges(guest):
    """The filter holds in the program; in both orders, for the first process and for others."""
    from struct import pack

    getuid, errno_38 = 102, 0x00050000 | 38
    code = ((0x20, 0, 0, 0), (0x15, 0, 1, getuid), (6, 0, 0, errno_38), (6, 0, 0, 0x7FFF0000))
    bpf = b"".join(pack("<HBBI", *line) for line in code)
    for no_new_privileges in (False, True):
        process = {"noNewPrivileges": no_new_privileges}
        out, _, _ = guest.run(
            "grep", "Seccomp:", "/proc/self/status", process=process, seccomp=api.Seccomp(bpf=bpf)
        )
        assert lines(out) == ["Seccomp:\t2"]


def test_init_reaps_and_forwards(guest):
    """The small init is process 1, ends as the program ends, and passes signals on."""
    out, _, end = guest.run("sh", "-c", "echo $$; exit 5", init=True)
    assert (out, end.exit_code) == (b"2\n", 5)
    script = "trap 'exit 9' TERM; echo up; while :; do sleep 0.1; done"
    guest.create("a", guest.spec("sh", "-c", script), init=True)
    out = guest.output("a")
    guest.start("a")
    assert out.read() == b"up\n"
    guest.call("Signal", api.SignalRequest(container_id="a", signal=signal.SIGTERM))
    assert guest.wait("a").exit_code == 9
    guest.delete("a")


def test_exec_joins_the_container(guest):
    """A further process is in the same namespaces, with its own user, streams and exit code."""
    guest.create("a", guest.spec("sleep", "100"))
    guest.start("a")
    script = "hostname; grep ^0: /proc/self/cgroup; ps -o args | head -2; id -u; cat; exit 3"
    out, end = guest.exec("a", "sh", "-c", script, input=b"fed", user={"uid": 1000, "gid": 1000})
    text = lines(out)
    assert text[0] == "box"
    assert text[1:4] == ["0::/", "COMMAND", "sleep 100"]
    assert text[4:] == ["1000", "fed"]
    assert end.exit_code == 3
    out, end = guest.exec("a", "sh", "-c", "tty; echo done", terminal=True)
    assert b"/dev/pts/" in out
    with pytest.raises(errors.CommandNotFound, match="executable file not found"):
        guest.exec("a", "nothing-like-it")
    guest.delete("a", force=True)


def test_exec_ends_though_its_children_hold_the_output(guest):
    """All that the process wrote arrives, then the stream ends, whoever still holds it."""
    guest.create("a", guest.spec("sleep", "100"))
    guest.start("a")
    begun = time.monotonic()
    out, _ = guest.exec("a", "sh", "-c", "seq 1 5000; sleep 50 &")
    assert lines(out)[-1] == "5000"
    assert time.monotonic() - begun < 40
    guest.delete("a", force=True)


def test_added_processes_are_forgotten_when_all_was_said(guest):
    """Of many that ended the oldest are forgotten, but not one whose output nobody took yet."""
    guest.create("a", guest.spec("sleep", "100"))
    guest.start("a")
    for number in range(70):
        process = guest.spec("seq", "1", "5000", rootfs="/")["process"]
        guest.call("Exec", api.ExecRequest(
            container_id="a", exec_id=f"x{number}", process=json.dumps(process).encode(),
            stdout=True,
        ))  # fmt: skip
        if number:
            assert lines(read_all(guest.output("a", f"x{number}")))[-1] == "5000"
        assert guest.wait("a", f"x{number}").exit_code == 0
    with pytest.raises(errors.NotFound):
        guest.wait("a", "x1")
    assert guest.wait("a", "x69").exit_code == 0
    assert lines(read_all(guest.output("a", "x0")))[-1] == "5000"
    guest.delete("a", force=True)


def test_namespaces_of_another_container(guest):
    """A container can share namespaces with one that is there, by its id."""
    guest.create("a", guest.spec("sleep", "100"))
    guest.start("a")
    kinds = [{"type": kind} for kind in ("mount", "uts", "cgroup")]
    kinds += [{"type": kind, "path": "kata:container:a"} for kind in ("pid", "network", "ipc")]
    script = "for n in net ipc uts; do readlink /proc/self/ns/$n; done; ps -o pid,args"
    theirs = lines(guest.exec("a", "sh", "-c", script)[0])
    out, _, _ = guest.run("sh", "-c", script, linux={"namespaces": kinds})
    ours = lines(out)
    assert ours[:2] == theirs[:2]
    assert ours[2] != theirs[2]
    assert any(line.split()[0] == "1" and "sleep 100" in line for line in ours[3:])
    assert guest.exec("a", "echo", "alive")[0] == b"alive\n"
    guest.delete("a", force=True)


def test_pause_list_and_delete(guest):
    """Processes are listed, frozen, and killed with the container."""
    guest.create("a", guest.spec("sh", "-c", "sleep 99 & exec sleep 100"))
    guest.start("a")
    request = api.ContainerRequest(container_id="a")
    deadline = time.monotonic() + 10
    wanted = ["sleep 100", "sleep 99"]
    while sorted(p.command for p in guest.call("ListProcesses", request).processes) != wanted:
        assert time.monotonic() < deadline
    guest.call("Pause", request)
    assert "frozen 1" in guest.call("Stats", request).files["cgroup.events"]
    guest.call("Resume", request)
    with pytest.raises(errors.WrongState, match="is running"):
        guest.delete("a")
    guest.delete("a", force=True)
    with pytest.raises(errors.NotFound):
        guest.call("Stats", request)


def test_devices_are_limited(guest):
    """A node may be made for any device, but only those allowed can be opened."""
    script = "mknod /tmp/a b 254 0; mknod /tmp/n c 1 3; echo > /tmp/n && echo fine; cat /tmp/a"
    out, err, _ = guest.run("sh", "-c", script)
    assert out == b"fine\n"
    assert b"/tmp/a': Operation not permitted" in err


def test_malformed_specifications_are_refused(guest):
    """Whatever is wrong in the configuration is an error, and the agent goes on."""
    spec = guest.spec("true")
    for change in (
        {"mounts": [5]}, {"process": []}, {"linux": {"namespaces": [{"type": "pid"}]}},
        {"process": {"args": "text"}}, {"root": {}}, {"root": {"path": "relative"}},
        {"root": {"path": "/nope"}},
        {"mounts": [{"destination": "/x", "type": "nosuchfs", "source": "a"}]},
    ):  # fmt: skip
        text = json.dumps(spec | change).encode()
        request = api.CreateContainerRequest(container_id="a", spec=text)
        with pytest.raises(errors.KataError):
            guest.call("CreateContainer", request)
    assert guest.run("echo", "hi")[0] == b"hi\n"


def test_floods_do_not_delay_answers(guest):
    """Two containers that write without end, read by nobody or somebody: calls are answered."""
    for name in ("a", "b"):
        guest.create(name, guest.spec("yes"))
        guest.start(name)
    unread, read = guest.output("a"), guest.output("b")
    total = 0
    while total < 4 << 20:
        data = read.read()
        total += len(data)
        read.consumed(len(data))
        guest.call("SetClock", api.SetClockRequest(realtime_ns=1), timeout=5)
    for name in ("a", "b"):
        guest.delete(name, force=True)
    assert not unread.ended or unread.read()


def test_time_namespace(guest):
    """Offsets of the clocks are seen inside."""
    kinds = [{"type": kind} for kind in ("mount", "pid", "uts", "ipc", "network", "cgroup", "time")]
    linux = {"namespaces": kinds, "timeOffsets": {"boottime": {"secs": 10**6, "nanosecs": 0}}}
    out, _, _ = guest.run("cut", "-d.", "-f1", "/proc/uptime", linux=linux)
    assert int(out) > 10**6
