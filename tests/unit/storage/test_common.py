"""Sources that several containers have: one name, counted; others keep their own."""

import os

import pytest

from kata.storage.common import Common
from kata.storage.plan import Directory, Volume, plan
from kata.wire.agent_api import Node


@pytest.fixture
def sources(tmp_path):
    """A function that gives descriptors by path, of directories below one."""
    opened = {}

    def find(*names: str) -> dict[str, int]:
        for name in names:
            path = f"{tmp_path}/{name}"
            os.makedirs(path, exist_ok=True)
            if path not in opened:
                opened[path] = os.open(path, os.O_PATH)
        return dict(opened)

    find.root = str(tmp_path)
    yield find
    for fd in opened.values():
        os.close(fd)


def planned(sources, container: str, *volumes: str, options=()):
    """The plan of a container with a root of its own and some volumes."""
    root = sources.root
    found = [Volume(f"{root}/{v}", f"/{v}", options=options) for v in volumes]
    return plan(container, Directory(f"{root}/{container}"), found)


def test_one_name_for_one_source(sources):
    """The second container's volume is the first one's, and is not shared again."""
    common = Common()
    fds = sources("one", "two", "data", "own")
    first, fresh = common.take(planned(sources, "one", "data"), fds)
    assert [s.name for s in fresh] == ["one-rootfs", "one-0"]
    second, fresh = common.take(planned(sources, "two", "data", "own"), fds)
    assert [s.name for s in fresh] == ["two-rootfs", "two-1"]
    assert [m["source"] for m in second.mounts] == [
        "/run/kata/volumes/one-0", "/run/kata/volumes/two-1",
    ]  # fmt: skip
    last = second.storages[-2:]
    assert [(s.driver, s.source, s.mount_point) for s in last] == [
        ("bind", f"/run/kata/shared/{name}", f"/run/kata/volumes/{name}")
        for name in ("one-0", "two-1")
    ]
    assert [s.name for s in common.drop(first)] == ["one-rootfs"]
    assert [s.name for s in common.drop(second)] == ["two-rootfs", "one-0", "two-1"]
    again, fresh = common.take(planned(sources, "two", "data"), fds)
    assert [s.name for s in fresh] == ["two-rootfs", "two-0"]
    assert again.mounts[0]["source"] == "/run/kata/volumes/two-0"


def test_files_are_bound_by_themselves(sources):
    """A file is no file system of its own."""
    common = Common()
    fds = sources("one", "data")
    volume = Volume(f"{sources.root}/data", "/etc/hosts", is_directory=False)
    before = plan("one", Directory(f"{sources.root}/one"), [volume])
    taken, _ = common.take(before, fds)
    assert taken == before


def test_twice_in_one_container(sources):
    """It is served once, and seen at both places."""
    common = Common()
    fds = sources("one", "data")
    root = sources.root
    volumes = [Volume(f"{root}/data", "/a"), Volume(f"{root}/data", "/b")]
    taken, fresh = common.take(plan("one", Directory(f"{root}/one"), volumes), fds)
    assert [s.name for s in fresh] == ["one-rootfs", "one-0"]
    assert [m["destination"] for m in taken.mounts] == ["/a", "/b"]
    assert len({m["source"] for m in taken.mounts}) == 1
    assert len(common.drop(taken)) == 2


def test_what_is_served_otherwise_is_another(sources):
    """Read-only, not recursive, or something else at the same path."""
    common = Common()
    fds = sources("one", "two", "three", "four", "data")
    names = set()
    for container, options in (("one", ()), ("two", ("ro",)), ("three", ("bind",))):
        taken, _ = common.take(planned(sources, container, "data", options=options), fds)
        names.add(taken.mounts[0]["source"])
    os.rename(f"{sources.root}/data", f"{sources.root}/old")
    os.mkdir(f"{sources.root}/data")
    fd = os.open(f"{sources.root}/data", os.O_PATH)
    replaced = {**fds, f"{sources.root}/data": fd}
    taken, _ = common.take(planned(sources, "four", "data"), replaced)
    os.close(fd)
    names.add(taken.mounts[0]["source"])
    assert len(names) == 4


def test_a_copy_is_made_once_and_not_served(sources):
    """The guest has one tree for all who have the source; what is served is a source of its own."""
    common = Common()
    fds = sources("one", "two", "three", "data")
    root = sources.root
    copy = (Node(mode=0o40755), Node(path="..data", mode=0o120777, content=b"..1"))

    def take(container, **how):
        volume = Volume(f"{root}/data", "/v", options=("ro",), **how)
        return common.take(plan(container, Directory(f"{root}/{container}"), [volume]), fds)

    first, fresh = take("one", copy=copy)
    assert [s.name for s in fresh] == ["one-rootfs"]
    assert first.shares[1].copy == copy
    point = "/run/kata/volumes/one-0"
    assert first.mounts[0]["source"] == point
    made = first.storages[-1]
    assert (made.driver, made.mount_point, tuple(made.nodes)) == ("tree", point, copy)
    second, fresh = take("two", copy=copy)
    assert [s.name for s in fresh] == ["two-rootfs"]
    assert second.mounts[0]["source"] == point
    served, fresh = take("three")
    assert [s.name for s in fresh] == ["three-rootfs", "three-0"]
    assert served.storages[-1].driver == "bind"
    assert [s.name for s in common.drop(first)] == ["one-rootfs"]
    assert [s.name for s in common.drop(second)] == ["two-rootfs", "one-0"]
