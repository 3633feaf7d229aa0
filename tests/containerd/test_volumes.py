"""Volumes over CRI: what is mounted, what is seen of changes, what is shared."""

from __future__ import annotations

import os
import tempfile

import pytest

from containerd.differences import differs
from support.cri import until


def volume(path: str, at: str = "/vol", **how: object) -> dict:
    """The change to a container's configuration that mounts a directory of the host."""
    return {"mounts": [{"host_path": path, "container_path": at, **how}]}


@pytest.fixture
def empty(pod):
    """A new directory of the host, as kubelet makes one for a pod."""
    return tempfile.mkdtemp(dir=pod.directory)


def test_writable(pod, empty):
    """What one side writes the other reads, with owner and mode."""
    with open(f"{empty}/host", "w", encoding="utf-8") as file:
        file.write("from the host")
    words = "cat /vol/host; echo inside >/vol/new; chown 1000:50 /vol/new; chmod 640 /vol/new"
    assert pod.once(words, **volume(empty)).out == "from the host"
    info = os.stat(f"{empty}/new")
    assert (info.st_uid, info.st_gid, info.st_mode & 0o777) == (1000, 50, 0o640)
    with open(f"{empty}/new", encoding="utf-8") as file:
        assert file.read() == "inside\n"


def test_read_only(pod, empty):
    """A volume that is read-only is, also for root."""
    words = "touch /vol/x 2>/dev/null || echo shut; ls /vol"
    assert pod.once(words, **volume(empty, readonly=True)).out == "shut"
    assert os.listdir(empty) == []


def test_single_file(pod, empty):
    """A file can be mounted, over one of the image's too."""
    with open(f"{empty}/hosts", "w", encoding="utf-8") as file:
        file.write("10.0.0.1 elsewhere\n")
    mounts = [
        {"host_path": f"{empty}/hosts", "container_path": path}
        for path in ("/etc/hosts", "/etc/group")
    ]
    assert (
        pod.once("cat /etc/hosts /etc/group", mounts=mounts).out.split()
        == ["10.0.0.1", "elsewhere"] * 2
    )


def test_volume_that_is_missing(pod, empty):
    """containerd makes a directory that is missing on the host."""
    pod.once("touch /vol/x", **volume(f"{empty}/made"))
    assert os.listdir(f"{empty}/made") == ["x"]


def test_nested(pod, empty):
    """A volume within a volume, and one volume at two places."""
    os.mkdir(f"{empty}/outer")
    os.mkdir(f"{empty}/inner")
    mounts = [
        {"host_path": f"{empty}/outer", "container_path": "/vol"},
        {"host_path": f"{empty}/inner", "container_path": "/vol/inner"},
        {"host_path": f"{empty}/inner", "container_path": "/again", "readonly": True},
    ]
    words = "echo one >/vol/a; echo two >/vol/inner/b; cat /again/b; touch /again/c || echo shut"
    assert pod.once(words, mounts=mounts).out.split() == ["two", "shut"]
    assert (sorted(os.listdir(f"{empty}/outer")), os.listdir(f"{empty}/inner")) == (
        ["a", "inner"],
        ["b"],
    )


def test_shared_directory(pod, empty):
    """Two containers share a directory: files, locks and a socket between them."""
    pod.up("server", "probe", "serve", "/vol/socket", **volume(empty))
    pod.logged("server", "ready")
    pod.up("client", **volume(empty, at="/other/place"))
    done = pod.exec("client", "probe", "dial", "/other/place/socket", "hello")
    assert (done.out, done.err) == ("got hello", "")
    assert pod.ended("server").exit_code == 0
    pod.sh("client", "echo fresh >/other/place/file")
    assert pod.once("cat /vol/file", **volume(empty)).out == "fresh"
    pod.remove("server")
    pod.remove("client")


def swap(path: str, version: str) -> None:
    """Put a version of a ConfigMap in place as kubelet does: all of it at once."""
    os.mkdir(f"{path}/..{version}")
    with open(f"{path}/..{version}/key", "w", encoding="utf-8") as file:
        file.write(version)
    os.symlink(f"..{version}", f"{path}/..data_tmp")
    os.rename(f"{path}/..data_tmp", f"{path}/..data")


def test_configuration_that_changes(pod, empty):
    """A ConfigMap that is swapped is read anew inside."""
    swap(empty, "first")
    os.symlink("..data/key", f"{empty}/key")
    pod.up("reader", **volume(empty, readonly=True))
    assert pod.sh("reader", "cat /vol/key") == "first"
    for version in ("second", "third"):
        swap(empty, version)
        until(lambda v=version: pod.sh("reader", "cat /vol/key") == v, 5)
    pod.remove("reader")


def test_watched_configuration(pod, empty):
    """Who watches the directory of a ConfigMap is told of the swap."""
    swap(empty, "first")
    pod.up("watcher", "probe", "watch", "/vol", **volume(empty, readonly=True))
    pod.logged("watcher", "ready")
    heard = ["ready"]
    for version in ("second", "third"):
        swap(empty, version)
        heard += [f"saw {name}" for name in (f"..{version}", "..data_tmp", "..data")]
        count = len(heard)
        until(lambda count=count: len(pod.log("watcher")) >= count, 10)
        assert [line.text for line in pod.log("watcher")] == heard
        assert pod.sh("watcher", "cat /vol/..data/key") == version
    later = pod.once("cat /other/..data/key", **volume(empty, "/other", readonly=True))
    assert later.out == "third"
    pod.remove("watcher")


def test_large_configuration_that_changes(pod, empty):
    """A directory that is swapped like a ConfigMap, and larger than any, is read anew as well."""
    with open(f"{empty}/large", "wb") as file:
        file.truncate(2 << 20)
    swap(empty, "first")
    pod.up("reader", **volume(empty, readonly=True))
    assert pod.sh("reader", "cat /vol/..data/key; echo; stat -c %s /vol/large").split() == [
        "first", str(2 << 20),
    ]  # fmt: skip
    swap(empty, "second")
    until(lambda: pod.sh("reader", "cat /vol/..data/key") == "second", 5)
    pod.remove("reader")


def test_watched_by_a_neighbour(pod, empty):
    """A watch in one container sees what another container makes."""
    pod.up("neighbour", "probe", "watch", "/vol", **volume(empty))
    pod.logged("neighbour", "ready")
    pod.once("touch /vol/made", **volume(empty))
    pod.logged("neighbour", "saw made")
    pod.remove("neighbour")


@pytest.mark.parametrize("propagation", ["PRIVATE", "HOST_TO_CONTAINER", "BIDIRECTIONAL"])
def test_propagation(make_pod, containerd, runtime, propagation):
    """Mounts made later arrive, or travel back, as asked; not to and from a machine."""
    pod = make_pod(linux={"security_context": {"privileged": True}})
    source = f"{containerd.place.directory}/own/travels"
    run = containerd.place.run
    run(
        "sh",
        "-c",
        f"mkdir -p {source}/late {source}/back && mount -t tmpfs tmpfs {source} && "
        f"mount --make-shared {source} && mkdir {source}/late {source}/back",
    )
    try:
        privileged = {"linux": {"security_context": {"privileged": True}}}
        pod.up("box", **volume(source, propagation=f"PROPAGATION_{propagation}"), **privileged)
        run("sh", "-c", f"mount -t tmpfs tmpfs {source}/late && touch {source}/late/seen")
        pod.sh("box", "mount -t tmpfs tmpfs /vol/back && touch /vol/back/seen")
        arrives = pod.exec("box", "ls", "/vol/late").out == "seen"
        returns = run("ls", f"{source}/back").stdout.strip() == "seen"
        wanted = {
            "PRIVATE": (False, False), "HOST_TO_CONTAINER": (True, False),
            "BIDIRECTIONAL": (True, True),
        }  # fmt: skip
        if differs(runtime, "propagation"):
            assert not returns
        else:
            assert (arrives, returns) == wanted[propagation]
    finally:
        pod.end()
        run("umount", "-R", "-l", source)
