"""Files of the host that QEMU itself serves, by 9p: what is found, and what must not be."""

import os
import stat
import subprocess
import sys

import pytest

from support.isolation import check
from support.vm import IMAGE

SETTINGS = '[hypervisor.qemu]\nshared_fs = "virtio-9p"\n'
KEPT = """\
set -e
echo new >/v/new && chown 1000:1001 /v/new && chmod 4755 /v/new
mkdir -m 2770 /v/dir && chown 0:1001 /v/dir && chmod 2770 /v/dir
ln /v/new /v/hard && ln -s new /v/sym && ln -s /etc/hostname /v/abs
chown -h 1002:1003 /v/sym
mv /v/dir /v/moved && touch /v/moved/in && mv /v/moved/in /v/out
cat /v/sym; readlink /v/abs
su ann -c 'echo hers >/v/free/file; cat /v/secret' 2>&1 || true
"""


@pytest.fixture
def nine(kata):
    """The command, with shares that QEMU serves."""
    kata.configure(SETTINGS)
    return kata


@pytest.fixture
def volume(directory):
    """A directory of the host."""
    os.makedirs(f"{directory}/volume/free", 0o777)
    os.chmod(f"{directory}/volume/free", 0o777)
    with open(f"{directory}/volume/secret", "w", encoding="utf-8") as file:
        file.write("secret\n")
    os.chmod(f"{directory}/volume/secret", 0o600)
    return f"{directory}/volume"


def test_files_are_the_hosts(nine, volume):
    """Owners, modes, links and renames are kept; the guest's users may what they may."""
    out = nine.ok("run", "--rm", "-v", f"{volume}:/v", IMAGE, "sh", "-c", KEPT)
    assert out.splitlines() == [
        "new", "/etc/hostname", "cat: can't open '/v/secret': Permission denied",
    ]  # fmt: skip
    new, link = os.stat(f"{volume}/new"), os.lstat(f"{volume}/sym")
    assert (new.st_uid, new.st_gid, new.st_nlink) == (1000, 1001, 2)
    assert stat.S_IMODE(new.st_mode) == 0o4755
    assert (link.st_uid, link.st_gid, os.readlink(f"{volume}/sym")) == (1002, 1003, "new")
    moved = os.stat(f"{volume}/moved")
    assert (moved.st_gid, stat.S_IMODE(moved.st_mode)) == (1001, 0o2770)
    assert os.stat(f"{volume}/out").st_gid == 1001
    hers = os.stat(f"{volume}/free/file")
    assert (hers.st_uid, hers.st_gid) == (1000, 1000)


def test_what_was_unlinked_is_there_while_it_is_open(nine, volume):
    """Written, unlinked, looked at and read by the descriptor."""
    script = "exec 3<>/v/gone; rm /v/gone; echo kept >&3; stat -L -c %s /proc/self/fd/3; ls /v"
    out = nine.ok("run", "--rm", "-v", f"{volume}:/v", IMAGE, "sh", "-c", script)
    assert out.split() == ["5", "free", "secret"]


def test_a_large_file_and_a_program(nine, volume):
    """32 MiB come back as they were; a program from the share is executed by its mapping."""
    data = os.urandom(1 << 20) * 32
    with open(f"{volume}/in", "wb") as stream:
        stream.write(data)
    script = "cp /v/in /v/out; cp /bin/busybox /v/echo && /v/echo executed"
    out = nine.ok("run", "--rm", "-v", f"{volume}:/v", IMAGE, "sh", "-c", script)
    assert out == "executed"
    with open(f"{volume}/out", "rb") as stream:
        assert stream.read() == data


def test_the_host_refuses_and_is_heard(nine, volume, directory):
    """Read-only is the host's refusal, also after a remount; its changes are seen at once."""
    options = ("--cap-add", "SYS_ADMIN", "--security-opt", "seccomp=unconfined")
    nine.ok(
        "run", "-d", "--name", "box", *options, "-v", f"{volume}:/ro:ro", "-v", f"{volume}:/v",
        IMAGE, "sleep", "1000",
    )  # fmt: skip
    refused = nine("exec", "box", "sh", "-c", "mount -o remount,rw /ro; echo x >/ro/x")
    assert "Read-only file system" in refused.err
    for turn in range(1, 4):
        with open(f"{volume}/news", "w", encoding="utf-8") as file:  # in place
            file.write("x" * turn * 7)
        os.makedirs(f"{volume}/v{turn}/inner")
        words = f"cat /v/news; ls -d /v/v{turn}/inner; stat -c %s /v/news"
        assert nine.ok("exec", "box", "sh", "-c", words).split() == [
            f"{'x' * turn * 7}/v/v{turn}/inner", str(turn * 7),
        ]  # fmt: skip
    os.rename(f"{volume}/news", f"{volume}/old")
    assert nine("exec", "box", "cat", "/v/news").code != 0
    nine.ok("rm", "-f", "box")
    assert not os.path.exists(f"{volume}/x")


def test_what_is_above_is_out_of_reach(nine, volume, directory):
    """Links and dots, in a volume and at the root of the share, lead to nothing of the host's."""
    with open(f"{directory}/beside", "w", encoding="utf-8") as file:
        file.write("beside")
    os.symlink("../beside", f"{volume}/up")
    os.symlink(f"{directory}/beside", f"{volume}/there")
    options = ("--cap-add", "SYS_ADMIN", "--security-opt", "seccomp=unconfined")
    nine.ok("run", "-d", "--name", "box", *options, "-v", f"{volume}:/v", IMAGE, "sleep", "1000")
    mount = "mkdir /s; mount -t 9p -o trans=virtio,version=9p2000.L kata /s"
    ran = nine("exec", "box", "sh", "-c", f"cat /v/up /v/there; ls -d /v/../*; {mount}")
    assert "beside\n" not in ran.stdout.decode()
    assert "/v/../etc" in ran.out
    assert "mount" in ran.err.splitlines()[-1]  # the device has one user
    root = f"/proc/{nine.inspect('box')['vmm_pid']}/root"
    assert sorted(os.listdir(root)) == ["proc", "shared"]
    assert os.listdir(f"{root}/shared") == ["first-0"]
    assert (os.listdir(f"{root}/proc"), os.listdir(f"{root}/proc/self")) == (["self"], ["fd"])
    for path in ("/new", "/shared/new", "/proc/new", "/proc/self/new"):
        with pytest.raises(OSError, match="Read-only"):
            os.mkdir(root + path)
    nine.ok("rm", "-f", "box")


def test_a_directory_is_a_root(nine, own_rootfs):
    """--rootfs: what the container writes is on the host, with its owner."""
    script = "echo kept > /root/kept; chown ann /root/kept; /bin/busybox id -u"
    assert nine.ok("run", "--rm", "--rootfs", own_rootfs, "--", "sh", "-c", script) == "0"
    assert os.stat(f"{own_rootfs}/root/kept").st_uid == 1000


def test_no_daemon_is_needed(kata, volume, directory):
    """Where the daemon is missing nothing has to be said, and nothing but QEMU is spawned."""
    kata.configure('[hypervisor.qemu]\nvirtio_fs_daemon = "/nonexistent/virtiofsd"\n')
    kata.ok("run", "-d", "--name", "box", "-v", f"{volume}:/v", IMAGE, "sleep", "1000")
    item = kata.inspect("box")
    with open(f"/proc/{item['pid']}/task/{item['pid']}/children", encoding="ascii") as file:
        assert file.read().split() == [str(item["vmm_pid"])]
    assert "/v 9p" not in kata.ok("exec", "box", "cat", "/etc/hostname")
    assert " /v 9p " in kata.ok("exec", "box", "cat", "/proc/mounts")
    kata.ok("rm", "-f", "box")


def test_qemu_is_as_the_table_says(nine, volume):
    """With a share it has rights over files, and sees the share and its own descriptors alone."""
    places = {nine.state: "store", nine.data: "store"}
    nine.ok("run", "-d", "--name", "box", "-v", f"{volume}:/v", IMAGE, "sleep", "1000")
    check("qemu with 9p", nine.inspect("box")["vmm_pid"], {"secret"}, places)
    nine.ok("run", "-d", "--name", "plain", IMAGE, "sleep", "1000")
    check("qemu", nine.inspect("plain")["vmm_pid"], set(), places)
    nine.ok("rm", "-f", "box", "plain")


REOPEN = """\
import ctypes, os, sys
os.setgroups([])
libc = ctypes.CDLL(None)
found = {}
for number in os.listdir(f"/proc/{sys.argv[1]}/fd"):
    path = f"/proc/{sys.argv[1]}/fd/{number}"
    if os.readlink(path).endswith((".erofs", "/memory", "/state")):
        try:
            os.close(os.open(path, os.O_RDWR))
            found[os.readlink(path)] = "opened"
        except OSError as error:
            found[os.readlink(path)] = error.strerror
print(sorted(set(found.values())), any(p.endswith("memory") for p in found))
"""


def test_what_qemu_reads_it_cannot_open_for_writing(nine, volume):
    """Not even root, which overrides permissions as QEMU does, can by QEMU's descriptors."""
    nine.ok("run", "-d", "--name", "box", "-v", f"{volume}:/v", IMAGE, "sleep", "1000")
    pid = str(nine.inspect("box")["vmm_pid"])
    done = subprocess.run(
        [sys.executable, "-c", REOPEN, pid], capture_output=True, text=True, check=True
    )  # fmt: skip
    assert done.stdout.strip() == "['Read-only file system'] True"
    nine.ok("rm", "-f", "box")
