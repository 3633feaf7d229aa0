"""Volumes and directories as roots, by way of the share, seen from inside a real container."""

from __future__ import annotations

import os
import stat

import pytest

from kata.linux.syscalls import MNT_DETACH, mount, umount
from support.vm import IMAGE

INSIDE = """\
set -e
cat /one /v/inner/seen
echo new > /v/new && chown 1000:1001 /v/new && chmod 4755 /v/new
ln /v/new /v/hard && ln -s new /v/sym
mkfifo /v/fifo && { echo passed > /v/fifo & cat /v/fifo; }
mkdir /made/here
[ "$(stat -c %d /v)" != "$(stat -c %d /v/inner)" ] && echo devices differ
for path in /ro/x /ro/inner/x /one; do (echo x > $path) 2>/dev/null || echo refused $path; done
"""


@pytest.fixture
def tree(directory):
    """A directory with a file system of its own mounted in it, and a file beside it."""
    os.makedirs(f"{directory}/tree/inner")
    mount("none", f"{directory}/tree/inner", "tmpfs")
    for path, text in (("tree/inner/seen", "seen\n"), ("one", "one\n")):
        with open(f"{directory}/{path}", "w", encoding="utf-8") as stream:
            stream.write(text)
    yield directory
    umount(f"{directory}/tree/inner", MNT_DETACH)


def mounts():
    with open("/proc/self/mountinfo", encoding="utf-8") as stream:
        return stream.read()


def test_volumes_are_the_hosts_files(kata, tree):
    """Owners, modes, links and pipes are kept; read-only is refused by the host, below too."""
    before = mounts()
    volumes = ("tree:/v", "tree:/ro:ro", "one:/one:ro", "missing/dir:/made")
    options = [word for v in volumes for word in ("-v", f"{tree}/{v}")]
    out = kata.ok("run", "--rm", *options, "busybox-test", "sh", "-c", INSIDE)
    assert out.splitlines() == [
        "one", "seen", "passed", "devices differ", "refused /ro/x", "refused /ro/inner/x",
        "refused /one",
    ]  # fmt: skip
    new = os.stat(f"{tree}/tree/new")
    assert (new.st_uid, new.st_gid, new.st_nlink) == (1000, 1001, 2)
    assert stat.S_IMODE(new.st_mode) == 0o4755
    assert os.readlink(f"{tree}/tree/sym") == "new"
    assert stat.S_ISFIFO(os.stat(f"{tree}/tree/fifo").st_mode)
    assert os.path.isdir(f"{tree}/missing/dir/here")
    assert sorted(os.listdir(f"{tree}/tree/inner")) == ["seen"]
    assert mounts() == before


def test_remounting_inside_does_not_make_it_writable(kata, tree):
    """A container that may mount is still refused by the host's side of a read-only volume."""
    script = "mount -o remount,rw /ro; echo x > /ro/x"
    options = ("--rm", "--cap-add", "SYS_ADMIN", "--security-opt", "seccomp=unconfined")
    ran = kata(
        "run", *options, "-v", f"{tree}/tree:/ro:ro", "busybox-test", "sh", "-c", script
    )  # fmt: skip
    assert ran.code != 0
    assert "Read-only file system" in ran.err
    assert not os.path.exists(f"{tree}/tree/x")


def test_a_large_file_is_the_same_on_both_sides(kata, directory):
    """64 MiB written by the host and read inside, and the other way round, byte for byte."""
    os.mkdir(f"{directory}/d")
    data = os.urandom(1 << 20) * 64
    with open(f"{directory}/d/in", "wb") as stream:
        stream.write(data)
    kata.ok(
        "run", "--rm", "-v", f"{directory}/d:/d", "busybox-test", "cp", "/d/in", "/d/out"
    )  # fmt: skip
    with open(f"{directory}/d/out", "rb") as stream:
        assert stream.read() == data


def test_a_directory_is_a_root_that_keeps_what_was_written(kata, own_rootfs):
    """--rootfs: what the container writes is on the host, with its owner."""
    script = "echo kept > /root/kept; chown ann /root/kept; cat /proc/sys/kernel/ostype"
    assert kata.ok("run", "--rm", "--rootfs", own_rootfs, "--", "sh", "-c", script) == "Linux"
    assert os.stat(f"{own_rootfs}/root/kept").st_uid == 1000


def test_what_is_above_a_volume_is_out_of_reach(kata, tree):
    """Links and dots inside a volume lead nowhere but into the container."""
    os.symlink("../../..", f"{tree}/tree/up")
    os.symlink("/etc/hostname", f"{tree}/tree/abs")
    script = "ls /v/up; cat /v/abs"
    out = kata.ok(
        "run", "--rm", "--hostname", "inner", "-v", f"{tree}/tree:/v", "busybox-test", "sh", "-c",
        script,
    )  # fmt: skip
    assert "busybox" not in out
    assert out.endswith("inner")
    assert "proc" in out.split()


def test_a_file_server_that_dies_ends_the_sandbox_with_a_reason(kata, directory):
    """The daemon killed from outside: the container ends, and the message names the daemon."""
    os.mkdir(f"{directory}/d")
    running = kata.start(
        "run", "--rm", "--name", "served", "-v", f"{directory}/d:/d", "busybox-test", "sh", "-c",
        "echo up; sleep 100",
    )  # fmt: skip
    assert running.stdout.readline() == b"up\n"
    supervisor = kata.inspect("served")["pid"]
    os.kill(served_by(supervisor), 9)
    out, err = running.communicate(timeout=60)
    assert running.returncode == 137
    assert b"virtiofsd" in err
    assert out == b""


def served_by(supervisor):
    """The pid of the file server of a supervisor."""
    with open(f"/proc/{supervisor}/task/{supervisor}/children", encoding="utf-8") as stream:
        pids = [int(word) for word in stream.read().split()]
    for pid in pids:
        with open(f"/proc/{pid}/comm", encoding="utf-8") as stream:
            if stream.read().strip() == "virtiofsd":
                return pid
    raise AssertionError(f"no virtiofsd among {pids}")


def test_a_coherent_share_has_no_old_sizes(kata, directory):
    """With virtio_fs_cache = "coherent" every look sees what the host has just made of a file."""
    kata.configure('[hypervisor.qemu]\nvirtio_fs_cache = "coherent"\n')
    os.makedirs(f"{directory}/volume/..1")
    volume = f"{directory}/volume"
    os.symlink("..1", f"{volume}/..data")
    kata.ok("run", "-d", "--name", "box", "-v", f"{volume}:/volume", IMAGE, "sleep", "1000")
    words = "cat /volume/news; cat /volume/..data/key"
    for turn in range(1, 6):
        text = "x" * turn * 7
        with open(f"{volume}/news", "w", encoding="utf-8") as file:  # in place
            file.write(text)
        os.makedirs(f"{volume}/..{turn}", exist_ok=True)
        with open(f"{volume}/..{turn}/key", "w", encoding="utf-8") as file:
            file.write(str(turn))
        os.symlink(f"..{turn}", f"{volume}/..new")  # as a ConfigMap is replaced
        os.rename(f"{volume}/..new", f"{volume}/..data")
        assert kata.ok("exec", "box", "sh", "-c", words) == f"{text}{turn}"
    kata.ok("rm", "-f", "box")
