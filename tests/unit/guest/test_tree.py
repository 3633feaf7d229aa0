"""Trees that are kept up to date: what is done in which order, and what a watch hears of it."""

import ctypes
import os
import stat
import struct

import pytest

from kata.errors import InvalidInput
from kata.guest import tree
from kata.guest.tree import Step
from kata.linux import inotify
from kata.linux.syscalls import libc
from kata.storage.tree import read
from kata.wire.agent_api import Node


def directory(path, mode=0o755):
    return Node(path=path, mode=stat.S_IFDIR | mode)


def file(path, content=b"", mode=0o644, mtime_ns=0):
    return Node(path=path, mode=stat.S_IFREG | mode, content=content, mtime_ns=mtime_ns)


def link(path, target):
    return Node(path=path, mode=stat.S_IFLNK | 0o777, content=target)


def nodes(*found):
    return {node.path: node for node in (directory(""), *found)}


def words(old, new):
    return [f"{step.verb} {step.path}" for step in tree.steps(old, new)]


def test_a_swap_is_kubelets():
    """The new version comes, the link is replaced, names are added, the rest goes, links first."""
    old = nodes(
        directory("..1"), file("..1/a"), file("..1/b"), link("..data", b"..1"),
        link("a", b"..data/a"), link("b", b"..data/b"),
    )  # fmt: skip
    new = nodes(
        directory("..2"), directory("..2/d"), file("..2/d/x"), file("..2/a", b"new"),
        link("..data", b"..2"), link("a", b"..data/a"), link("d", b"..data/d"),
    )  # fmt: skip
    assert words(old, new) == [
        "make ..2", "make ..2/a", "make ..2/d", "make ..2/d/x", "replace ..data", "make d",
        "remove b", "remove ..1/b", "remove ..1/a", "remove ..1",
    ]  # fmt: skip
    assert not tree.steps(new, new)


def test_files_elsewhere_are_replaced():
    """A file in a directory that is there is never seen in part; only its mode is set in place."""
    old = nodes(file("a", b"1"), file("b", b"1"), file("c"), link("d", b"a"), link("e", b"a"))
    new = nodes(
        file("a", b"2"), file("b", b"1", 0o600), file("c", mtime_ns=5), file("d", b"a"),
        link("e", b"b"), file("f"),
    )  # fmt: skip
    assert words(old, new) == [
        "replace a", "settle b", "settle c", "replace d", "replace e", "replace f",
    ]  # fmt: skip
    assert tree.steps(nodes(), {"": directory("", 0o700)}) == [Step("settle", "")]


def test_a_directory_is_not_replaced():
    """What was a directory, or becomes one, goes first."""
    old = nodes(directory("a"), file("a/x"), file("b"))
    new = nodes(file("a"), directory("b"), file("b/x"))
    assert words(old, new) == [
        "remove b", "remove a/x", "remove a", "make b", "make b/x", "replace a",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "bad",
    [
        [], [file("")], [directory(""), file("../x")], [directory(""), file("/x")],
        [directory(""), file("a/x")], [directory(""), file("a"), file("a/x")],
        [directory(""), file("a"), file("a")], [directory(""), file("a\0")],
        [directory(""), Node(path="a", mode=stat.S_IFIFO)], [directory(""), file(".")],
        [directory(""), link("a", b"/"), file("a/x")],
        [directory(""), *(file(str(number)) for number in range(1024))],
    ],
)  # fmt: skip
def test_what_is_no_tree_is_refused(bad):
    """Names lead nowhere else, parents are there, and there is an end."""
    with pytest.raises(InvalidInput, match="tree"):
        tree.check(bad)


def snapshot(path):
    """What is in a directory, by path, as the host reads it."""
    fd = os.open(path, os.O_PATH)
    try:
        return {node.path: node for node in read(fd, 1 << 20)}
    finally:
        os.close(fd)


def publish(path, version, keys, before=""):
    """What kubelet's AtomicWriter does, call by call."""
    os.mkdir(f"{path}/{version}", 0o755)
    for key in keys:
        with open(f"{path}/{version}/{key}", "w", encoding="utf-8") as out:
            out.write(f"{key} of {version}")
        os.chmod(f"{path}/{version}/{key}", 0o640)
    os.symlink(version, f"{path}/..data_tmp")
    os.rename(f"{path}/..data_tmp", f"{path}/..data")
    for key in keys:
        if not os.path.lexists(f"{path}/{key}"):
            os.symlink(f"..data/{key}", f"{path}/{key}")
    for name in os.listdir(path):
        if not name.startswith("..") and name not in keys:
            os.unlink(f"{path}/{name}")
    if before:
        for key in os.listdir(f"{path}/{before}"):
            os.unlink(f"{path}/{before}/{key}")
        os.rmdir(f"{path}/{before}")


@pytest.fixture
def heard():
    """A function that starts to listen to a directory, and gives one that says what was heard."""
    opened = []

    def listen(path):
        watch = inotify.open_watch()
        opened.append(watch)
        libc.inotify_add_watch(watch, os.fsencode(path), ctypes.c_uint32(0x3CA))

        def told():
            data, at, found = os.read(watch, 1 << 16), 0, []
            while at < len(data):
                _, mask, _, size = struct.unpack_from("iIII", data, at)
                name = data[at + 16 : at + 16 + size].rstrip(b"\0").decode()
                found.append((hex(mask), name))
                at += 16 + size
            return found

        return told

    yield listen
    for watch in opened:
        os.close(watch)


def test_a_watch_hears_what_it_hears_on_the_host(tmp_path, heard):
    """The same events, in the same order, for a copy as for kubelet's directory; equal trees."""
    host, copy = tmp_path / "host", tmp_path / "copy"
    os.mkdir(host)
    os.mkdir(copy)
    publish(host, "..1", ["a", "b"])
    have: dict[str, Node] = {}
    tree.apply(str(copy), have, snapshot(host))
    assert snapshot(copy) == snapshot(host) == have
    on_host, on_copy = heard(host), heard(copy)
    publish(host, "..2", ["a", "c"], before="..1")
    tree.apply(str(copy), have, snapshot(host))
    assert snapshot(copy) == snapshot(host) == have
    told = on_host()
    assert ("0x80", "..data") in told  # IN_MOVED_TO
    assert on_copy() == told


def test_it_goes_on_after_a_failure(tmp_path):
    """What could not be written is, the next time: nothing half made is in the way."""
    have = {}
    tree.apply(str(tmp_path), have, nodes(file("a", b"old"), link("..data", b"..1")))
    os.mkdir(tmp_path / "a_tmp")  # in the way of the rename
    wanted = nodes(file("a", b"new"), directory("..2"), file("..2/x"), link("..data", b"..2"))
    with pytest.raises(OSError, match="a_tmp"):
        tree.apply(str(tmp_path), have, wanted)
    assert (tmp_path / "a").read_bytes() == b"old"
    os.rmdir(tmp_path / "a_tmp")
    tree.apply(str(tmp_path), have, wanted)
    assert (tmp_path / "a").read_bytes() == b"new"
    assert have == wanted
    assert os.readlink(tmp_path / "..data") == "..2"


def test_links_are_not_followed(tmp_path):
    """A directory that became a link behind the agent's back leads it nowhere."""
    outside = tmp_path / "outside"
    outside.mkdir()
    top = tmp_path / "top"
    top.mkdir()
    have = {}
    tree.apply(str(top), have, nodes(directory("d")))
    os.rmdir(top / "d")
    os.symlink(outside, top / "d")
    with pytest.raises(OSError, match="open d"):
        tree.apply(str(top), have, nodes(directory("d"), file("d/x")))
    assert not os.listdir(outside)
