"""Copies of the host's volumes, from the directory of the host to the container: the real agent."""

import os
import time

import pytest

from kata.errors import InvalidInput, NotFound
from kata.linux import inotify, syscalls
from kata.runtime import follow
from kata.storage import common, tree
from kata.storage.plan import Share
from kata.wire import agent_api as api

BIND = {"destination": "/vol", "type": "bind", "options": ["bind", "ro"]}


def publish(path, version, content):
    """Swap in a version as kubelet does."""
    before = os.readlink(f"{path}/..data") if os.path.lexists(f"{path}/..data") else ""
    os.mkdir(f"{path}/{version}")
    with open(f"{path}/{version}/key", "w", encoding="utf-8") as file:
        file.write(content)
    os.chmod(f"{path}/{version}/key", 0o640)
    os.chown(f"{path}/{version}/key", 0, 1234)
    os.symlink(version, f"{path}/..data_tmp")
    os.rename(f"{path}/..data_tmp", f"{path}/..data")
    if before:
        os.unlink(f"{path}/{before}/key")
        os.rmdir(f"{path}/{before}")
    else:
        os.symlink("..data/key", f"{path}/key")


class Copied:
    """A directory of the host of which a container has a copy."""

    def __init__(self, guest, directory):
        self.guest = guest
        self.path = f"{directory}/config"
        os.mkdir(self.path)
        publish(self.path, "..1", "first")
        self.fd = os.open(self.path, os.O_PATH)
        self.share = Share(
            self.path, "box-0", readonly=True, is_directory=True, copy=tree.read(self.fd, 1 << 20)
        )
        self.followed = follow.Followed()

    def create(self, name):
        """Make and start a container that has it."""
        storage = common._storage(self.share, common.point_of("box-0"))
        mount = {**BIND, "source": storage.mount_point}
        spec = self.guest.spec("sleep", "100", more_mounts=[mount])
        self.guest.create(name, spec, storages=[storage])
        self.guest.start(name)

    def follow(self):
        """Keep it up to date from now on."""
        self.followed.take([self.share], {self.path: self.fd})
        self.followed.start(self.guest.client)

    def inside(self, words):
        """What a shell in the container says."""
        return self.guest.exec("box", "sh", "-c", words)[0].decode().strip()

    def reads(self, wanted, words="cat /vol/key"):
        """Wait until the container reads this."""
        deadline = time.monotonic() + 10
        while (found := self.inside(words)) != wanted:
            assert time.monotonic() < deadline, found
            time.sleep(0.02)


@pytest.fixture
def copied(guest, directory, monkeypatch):
    """A container "box" with a copy."""
    monkeypatch.setattr(common, "_POINTS", f"{directory}/volumes")
    found = Copied(guest, directory)
    found.create("box")
    yield found
    found.followed.close()
    os.close(found.fd)
    guest.delete("box", force=True)


def test_it_is_what_the_host_has(copied):
    """Contents, links, owner, mode and time; nobody inside writes to it."""
    words = "cd /vol; cat key; echo; stat -c %g:%a:%Y ..data/key; readlink ..data; readlink key"
    seen = copied.inside(words)
    mtime = int(os.stat(f"{copied.path}/key").st_mtime)
    assert seen.split() == ["first", f"1234:640:{mtime}", "..1", "..data/key"]
    assert copied.inside("touch /vol/x 2>/dev/null || echo shut") == "shut"


def test_it_follows(copied):
    """What was swapped before it was watched, and after; files and modes in place, too."""
    publish(copied.path, "..2", "second")
    copied.follow()
    copied.reads("second")
    for number in range(3, 6):
        publish(copied.path, f"..{number}", f"version {number}")
        copied.reads(f"version {number}")
    assert copied.inside("ls -A /vol").split() == ["..5", "..data", "key"]
    with open(f"{copied.path}/..5/key", "a", encoding="utf-8") as file:
        file.write(" and more")
    copied.reads("version 5 and more")
    os.chmod(f"{copied.path}/..5/key", 0o600)
    copied.reads("600", "stat -c %a /vol/..data/key")


def test_it_follows_without_watches(copied, monkeypatch):
    """Where the host has no watch left, the change comes a little later."""

    def refuse():
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(inotify, "open_watch", refuse)
    monkeypatch.setattr(follow, "LOOK_MS", 100)
    copied.follow()
    publish(copied.path, "..2", "second")
    copied.reads("second")


def test_it_stays_when_it_grows_too_large(copied, capfd):
    """The container keeps the last version that could be copied; the log says so, once."""
    copied.follow()
    publish(copied.path, "..2", "x" * (tree.MOST_LATER + 1))
    deadline = time.monotonic() + 10
    said = ""
    while "too large" not in said:
        assert time.monotonic() < deadline
        said += capfd.readouterr().err
    assert copied.inside("cat /vol/key") == "first"
    publish(copied.path, "..3", "small again")
    copied.reads("small again")
    said += capfd.readouterr().err
    assert said == (
        f'volume "{copied.path}": the container sees it as it was: '
        "it has become too large to be copied\n"
    )


def test_two_containers_have_one(copied, guest):
    """The last one takes it away, and what is forgotten is not told of."""
    copied.create("other")
    guest.delete("box", force=True)
    copied.follow()
    publish(copied.path, "..2", "second")
    deadline = time.monotonic() + 10
    while guest.exec("other", "cat", "/vol/key")[0] != b"second":
        assert time.monotonic() < deadline
    assert copied.followed.drop([copied.share]) == ()
    guest.delete("other", force=True)
    with pytest.raises(NotFound, match="no tree"):
        guest.call("UpdateTree", api.UpdateTreeRequest(mount_point=common.point_of("box-0")))
    copied.create("box")
    assert copied.inside("cat /vol/key") == "first"


def test_a_tree_that_is_none_is_refused(copied, guest):
    """Names that lead out of it change nothing."""
    point = common.point_of("box-0")
    bad = [api.Node(mode=0o40755), api.Node(path="../x", mode=0o100644)]
    with pytest.raises(InvalidInput, match="no place in it"):
        guest.call("UpdateTree", api.UpdateTreeRequest(mount_point=point, nodes=bad))
    assert copied.inside("cat /vol/key") == "first"


def test_the_host_can_unmount_it(copied):
    """What is followed does not hold the host's mount: kubelet takes volumes away."""
    os.close(copied.fd)
    syscalls.mount("tmpfs", copied.path, "tmpfs")
    try:
        publish(copied.path, "..1", "mounted")
        copied.fd = os.open(copied.path, os.O_PATH)
        copied.follow()
        copied.reads("mounted")
        os.close(copied.fd)
    finally:
        syscalls.umount(copied.path)
    copied.fd = os.open(copied.path, os.O_PATH)


def test_many_swaps_at_once(copied):
    """Whatever was seen on the way, the last version is what stays, and nothing of the others."""
    copied.follow()
    for number in range(2, 200):
        publish(copied.path, f"..{number}", f"version {number}")
        time.sleep(0.0005 * (number % 40))  # at some of them it is quiet for long enough
    copied.reads("version 199")
    copied.reads("..199 ..data key", "ls -A /vol | xargs")
