"""``kata run`` behaves as ``docker run``: exit codes, streams, environment, users, files."""

import os
import re

import pytest

from support import busybox, oci_image
from support.vm import IMAGE


def test_another_kernel_than_the_host_s(kata, rootfs):
    """The container runs on a kernel that is not the host's, and as PID 1."""
    result = kata("run", "--rm", "--rootfs", rootfs, "--", "sh", "-c", "uname -r; echo $$")
    release, pid = result.out.split()
    assert (result.code, result.stderr) == (0, b"")
    assert re.fullmatch(r"\d+\.\d+\.\d+\S*", release)
    assert release != os.uname().release
    assert pid == "1"


@pytest.mark.parametrize("options", [[], ["--no-template"]], ids=["template", "cold"])
@pytest.mark.parametrize("code", [0, 7, 255])
def test_the_exit_code_is_the_process_s(kata, options, code):
    """``sh -c 'exit 7'`` ends with 7, restored or booted."""
    assert kata("run", "--rm", *options, IMAGE, "sh", "-c", f"exit {code}").code == code


def test_a_signal_is_128_and_its_number(kata):
    """A process that is killed inside ends the command with 128 + signal."""
    assert kata("run", "--rm", "--init", IMAGE, "sh", "-c", "kill -TERM $$").code == 143


@pytest.mark.parametrize(
    ("command", "code", "text"),
    [
        ("nosuch", 127, 'exec: "nosuch": executable file not found in $PATH'),
        ("/nosuch/program", 127, "/nosuch/program"),
        ("/etc/passwd", 126, "permission denied"),
        ("/tmp", 126, "/tmp"),
    ],
)
def test_what_cannot_be_run(kata, command, code, text):
    """126 for what is not executable, 127 for what is not found, with its name."""
    result = kata("run", "--rm", IMAGE, command)
    assert (result.code, result.stdout) == (code, b"")
    assert text in result.err.lower() or text in result.err


def test_standard_input_is_closed_unless_asked_for(kata):
    """Without -i the process reads end of file; with -i it reads what comes."""
    assert kata("run", "--rm", IMAGE, "cat", input=b"x").stdout == b""
    assert kata("run", "--rm", "-i", IMAGE, "cat", input=b"x").stdout == b"x"


def test_streams_stay_apart(kata):
    """What goes to stdout arrives on stdout alone, byte for byte, and stderr likewise."""
    script = r"printf 'o\0\377\r\n'; printf 'e\200' >&2"
    result = kata("run", "--rm", IMAGE, "sh", "-c", script)
    assert (result.stdout, result.stderr) == (b"o\0\xff\r\n", b"e\x80")


def test_environment(kata, directory):
    """Variables are set, passed on, and read from a file; the host's others are not there."""
    with open(f"{directory}/env", "w", encoding="utf-8") as file:
        file.write("# comment\nFROM_FILE=a b\nPASSED\n")
    result = kata(
        "run", "--rm", "-e", "A=1", "-e", "PASSED", "--env-file", f"{directory}/env", IMAGE, "env",
        PASSED="yes", SECRET="no",
    )  # fmt: skip
    lines = result.out.splitlines()
    assert {"A=1", "PASSED=yes", "FROM_FILE=a b", "HOME=/root"} <= set(lines)
    assert not [line for line in lines if line.startswith("SECRET")]


def test_working_directory_and_user(kata):
    """-w is made if missing; -u takes names and numbers, and the image's groups."""
    script = "pwd; id; echo $HOME"
    out = kata.ok("run", "--rm", "-w", "/new/place", "-u", "ann", IMAGE, "sh", "-c", script)
    assert out.splitlines() == [
        "/new/place", "uid=1000(ann) gid=1000(ann) groups=50(staff),1000(ann)", "/home/ann",
    ] or "uid=1000(ann) gid=1000(ann)" in out  # fmt: skip
    assert "50(staff)" in out
    ids = kata.ok("run", "--rm", "-u", "123:456", IMAGE, "sh", "-c", "id -u; id -g")
    assert ids.split() == ["123", "456"]
    result = kata("run", "--rm", "-u", "nosuch", IMAGE, "id")
    assert result.code == 125
    assert "nosuch" in result.err


def test_names_of_the_host(kata):
    """The host name is what was asked for, and /etc/hosts knows it."""
    script = "hostname; cat /proc/sys/kernel/domainname; grep box /etc/hosts; grep db /etc/hosts"
    out = kata.ok(
        "run", "--rm", "--hostname", "box", "--domainname", "example", "--add-host", "db:10.0.0.9",
        IMAGE, "sh", "-c", script,
    ).splitlines()  # fmt: skip
    assert out[:2] == ["box", "example"]
    assert "box" in out[2]
    assert out[-1].split() == ["10.0.0.9", "db"]


def test_volumes(kata, directory):
    """A volume shows the host's directory or file, is written through, or read-only."""
    os.mkdir(f"{directory}/shared")
    with open(f"{directory}/file", "w", encoding="utf-8") as file:
        file.write("host\n")
    script = "echo guest > /data/new; cat /etc/file; echo x > /ro/no"
    result = kata(
        "run", "--rm", "-v", f"{directory}/shared:/data", "-v", f"{directory}/file:/etc/file:ro",
        "-v", f"{directory}/shared:/ro:ro", IMAGE, "sh", "-c", script,
    )  # fmt: skip
    assert result.out == "host"
    assert "Read-only file system" in result.err
    with open(f"{directory}/shared/new", encoding="utf-8") as file:
        assert file.read() == "guest\n"


def test_a_rootfs_directory_is_written_through(kata, own_rootfs):
    """What the container writes into --rootfs is there afterwards, with its owner."""
    script = "echo x > /root/made; chown 1000:1000 /root/made; chmod 640 /root/made"
    kata.ok("run", "--rm", "--rootfs", own_rootfs, "--", "sh", "-c", script)
    status = os.stat(f"{own_rootfs}/root/made")
    assert (status.st_uid, status.st_gid, status.st_mode & 0o777) == (1000, 1000, 0o640)


def test_an_image_is_never_written_to(kata):
    """Two containers of one image do not see each other's files."""
    kata.ok("run", "--rm", IMAGE, "sh", "-c", "echo x > /made; rm /bin/vi")
    assert kata("run", "--rm", IMAGE, "ls", "/made").code == 1
    assert kata("run", "--rm", IMAGE, "ls", "/bin/vi").code == 0


def test_read_only_and_tmpfs(kata):
    """--read-only refuses writes to the root; a --tmpfs takes them."""
    script = "echo x > /no; echo y > /scratch/yes && cat /scratch/yes; grep scratch /proc/mounts"
    result = kata(
        "run", "--rm", "--read-only", "--tmpfs", "/scratch:size=1m", IMAGE, "sh", "-c", script
    )
    assert "Read-only file system" in result.err
    assert result.out.splitlines()[0] == "y"
    assert "size=1024k" in result.out


def test_limits(kata):
    """ulimits, sysctls, memory, processes and shm are what was asked for."""
    script = (
        "ulimit -n; cat /proc/sys/net/ipv4/ip_forward; cat /sys/fs/cgroup/memory.max;"
        "cat /sys/fs/cgroup/pids.max; df -k /dev/shm | tail -1 | awk '{print $2}'"
    )
    out = kata.ok(
        "run", "--rm", "--ulimit", "nofile=77:88", "--sysctl", "net.ipv4.ip_forward=1", "-m",
        "128m", "--pids-limit", "33", "--shm-size", "2m", IMAGE, "sh", "-c", script,
    )  # fmt: skip
    assert out.split() == ["77", "1", str(128 << 20), "33", "2048"]


def test_docker_s_confinement(kata):
    """Capabilities, seccomp, masked and read-only paths are Docker's defaults."""
    script = "grep -E 'CapEff|CapBnd|NoNewPrivs|Seccomp:' /proc/self/status"
    lines = kata.ok("run", "--rm", IMAGE, "sh", "-c", script).splitlines()
    facts = dict(line.split(":\t") for line in lines)
    assert facts["CapEff"] == facts["CapBnd"] == "00000000a80425fb"
    assert (facts["NoNewPrivs"], facts["Seccomp"]) == ("0", "2")
    script = (
        "cat /proc/kcore | wc -c; echo 1 > /proc/sys/kernel/panic; mount -t tmpfs x /mnt;"
        "unshare -U true"
    )
    result = kata("run", "--rm", IMAGE, "sh", "-c", script)
    assert result.out == "0"
    assert result.err.count("Read-only file system") == 1
    assert result.code != 0


def test_confinement_can_be_changed(kata):
    """Capabilities are added and dropped, filters taken off, privileges frozen."""
    script = "grep -E 'CapEff|NoNewPrivs|Seccomp:' /proc/self/status"
    out = kata.ok(
        "run", "--rm", "--cap-drop", "ALL", "--cap-add", "NET_ADMIN", "--security-opt",
        "seccomp=unconfined", "--security-opt", "no-new-privileges", IMAGE, "sh", "-c", script,
    )  # fmt: skip
    facts = dict(line.split(":\t") for line in out.splitlines())
    assert facts == {"CapEff": "0000000000001000", "NoNewPrivs": "1", "Seccomp": "0"}


def test_no_network_but_loopback(kata):
    """There is a loopback that is up, and nothing else."""
    out = kata.ok("run", "--rm", IMAGE, "sh", "-c", "ls /sys/class/net; ping -c 1 127.0.0.1 >&2")
    assert out == "lo"


def test_an_image_s_configuration_is_honoured(own_images, directory):
    """Entrypoint, command, environment, user and directory come from the image, and yield."""
    kata = own_images
    layer = oci_image.layer_of(busybox.make(f"{directory}/root"))
    config = {
        "Entrypoint": ["sh", "-c", 'echo "$X $(id -u) $(pwd) $*"', "name"], "Cmd": ["given"],
        "Env": ["PATH=/bin", "X=1"], "User": "ann", "WorkingDir": "/tmp",
    }  # fmt: skip
    reference = f"oci:{oci_image.write(f'{directory}/image', [layer], config)}"
    assert kata.ok("run", "--rm", reference) == "1 1000 /tmp given"
    changed = kata.ok("run", "--rm", "-e", "X=2", "-u", "0", "-w", "/", reference, "b", "c")
    assert changed == "2 0 / b c"
    assert kata.ok("run", "--rm", "--entrypoint", "pwd", reference) == "/tmp"


def test_init_reaps(kata):
    """With --init there is an init in front of the command, which reaps orphans."""
    script = "sh -c 'sleep 0.1 &' ; sleep 0.5; ps -o pid,stat,args; echo $$"
    out = kata.ok("run", "--rm", "--init", IMAGE, "sh", "-c", script)
    assert out.splitlines()[-1] != "1"
    assert " Z" not in out
