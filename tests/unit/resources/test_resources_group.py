"""Control groups of a sandbox over a tree of plain files (the kernel's are in tests/system)."""

from __future__ import annotations

import os

import pytest

from kata.linux import cgroups
from kata.linux.cgroups import Layout
from kata.resources import group
from kata.resources.plan import Limits, for_machine

V1 = """\
31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:3 - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
"""
V2 = "30 23 0:26 / /sys/fs/cgroup\\040x rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n"


def test_layouts_are_read_from_mountinfo():
    """Version 1 with shared mounts, hybrid, version 2 with an odd name, and none at all."""
    v1 = cgroups.parse(V1)
    assert v1.version == 1
    assert dict(v1.v1) == {
        "cpu": "/sys/fs/cgroup/cpu,cpuacct",
        "cpuacct": "/sys/fs/cgroup/cpu,cpuacct",
        "memory": "/sys/fs/cgroup/memory",
    }
    assert v1.unified == "/sys/fs/cgroup/unified"
    v2 = cgroups.parse(V2, "cpu memory pids\n")
    assert (v2.version, v2.unified) == (2, "/sys/fs/cgroup x")
    assert v2.controllers == ("cpu", "memory", "pids")
    assert cgroups.parse("rubbish\n").version == 0


class Tree:
    """A directory where files of groups appear when a group is made, as the kernel does it."""

    def __init__(self, root, files, monkeypatch):
        self.root, self.files, self.log = str(root), files, []
        self._fill(self.root)
        make, remove = os.mkdir, os.rmdir

        def mkdir(path, mode):
            make(path, mode)
            self._fill(path)

        def rmdir(path):
            for file in self.files:
                os.unlink(f"{path}/{file}")
            remove(path)

        monkeypatch.setattr(os, "mkdir", mkdir)
        monkeypatch.setattr(os, "rmdir", rmdir)
        real = cgroups.write
        monkeypatch.setattr(cgroups, "write", lambda p, v: (self.log.append((p, v)), real(p, v)))

    def _fill(self, path):
        for file in self.files:
            with open(f"{path}/{file}", "w", encoding="utf-8") as stream:
                stream.write("0-1" if file.startswith("cpuset") else "")

    def written(self):
        return [(p.removeprefix(self.root), v) for p, v in self.log]


def test_version_2_passes_controllers_on_at_every_level(tmp_path, monkeypatch):
    """Controllers are enabled from the top down before limits are written; then all is removed."""
    files = ("cgroup.procs", "cgroup.subtree_control", "memory.max", "cpu.max", "pids.max",
             "memory.oom.group", "cgroup.kill")  # fmt: skip
    tree = Tree(tmp_path, files, monkeypatch)
    layout = Layout((), str(tmp_path), ("cpu", "memory", "pids", "io"))
    made = group.create("s1", for_machine(512, 2), layout=layout)
    enable = [("cgroup.subtree_control", f"+{c}") for c in ("memory", "cpu", "pids")]
    assert tree.written() == [
        *((f"/{f}", v) for f, v in enable),
        *((f"/kata/{f}", v) for f, v in enable),
        ("/kata/s1/memory.max", "704643072"),
        ("/kata/s1/memory.oom.group", "1"),
        ("/kata/s1/cpu.max", "200000 100000"),
        ("/kata/s1/pids.max", "4096"),
    ]
    assert made.warnings == []
    entry = made.entry()
    assert os.path.samestat(os.stat(entry.cgroup), os.stat(tmp_path / "kata" / "s1"))
    assert group.names(layout=layout) == {"s1"}
    made.remove()
    made.remove()
    assert group.names(layout=layout) == set()


def test_a_controller_that_comes_later(tmp_path, monkeypatch):
    """An update may need a hierarchy that the start did not: the processes are in it, too."""
    files = ("cgroup.procs", "tasks", "cpu.cfs_quota_us", "cpu.cfs_period_us", "cpuset.cpus",
             "cpuset.mems")  # fmt: skip
    tree = Tree(tmp_path, (), monkeypatch)
    tree.files = files
    cpu, cpuset = (str(tmp_path / n) for n in ("cpu", "cpuset"))
    for path in (cpu, cpuset):
        os.mkdir(path, 0o755)
    layout = Layout((("cpu", cpu), ("cpuset", cpuset)))
    made = group.create("s1", Limits(cpu_quota=5000, tasks=0), layout=layout)
    (tmp_path / "cpu/kata/s1/cgroup.procs").write_text("17\n")
    tree.log.clear()
    made.extend(Limits(cpu_quota=-1, cpuset_cpus="1", tasks=0), layout)
    assert tree.written()[-4:] == [
        ("/cpu/kata/s1/cpu.cfs_period_us", "100000"),
        ("/cpu/kata/s1/cpu.cfs_quota_us", "-1"),
        ("/cpuset/kata/s1/cpuset.cpus", "1"),
        ("/cpuset/kata/s1/cgroup.procs", "17"),
    ]
    assert made.warnings == []
    made.remove()
    assert group.names(layout=layout) == set()


def test_a_quota_that_comes_later_in_version_2(tmp_path, monkeypatch):
    """A quota holds from the container's start on: its controller is passed on down to then."""
    files = ("cgroup.procs", "cgroup.subtree_control", "memory.max", "cpu.max", "pids.max",
             "memory.oom.group", "cgroup.kill")  # fmt: skip
    tree = Tree(tmp_path, files, monkeypatch)
    layout = Layout((), str(tmp_path), ("cpu", "memory", "pids", "io"))
    made = group.create("s1", Limits(memory=1 << 30), layout=layout)
    tree.log.clear()
    made.extend(Limits(memory=1 << 30, cpu_quota=50_000), layout)
    assert [w for w in tree.written() if "subtree" in w[0] or "cpu" in w[0]] == [
        ("/cgroup.subtree_control", "+cpu"),
        ("/kata/cgroup.subtree_control", "+cpu"),
        ("/kata/s1/cpu.max", "50000 100000"),
    ]
    assert made.warnings == []


def test_who_removes_a_group_leaves_it_first(tmp_path, monkeypatch):
    """A group goes although the one that removes it is in it; levels may refuse it."""
    tree = Tree(tmp_path, ("cgroup.procs",), monkeypatch)
    layout = Layout((("pids", str(tmp_path)),))
    made = group.create("s1", Limits(tasks=0), layout=layout)
    (tmp_path / "kata/s1/cgroup.procs").write_text(f"{os.getpid()}\n")
    logged = cgroups.write

    def write(path, value):
        if path.endswith("/kata/cgroup.procs"):
            raise OSError(16, "busy")
        logged(path, value)

    monkeypatch.setattr(cgroups, "write", write)
    made.remove()
    assert tree.written()[-1] == ("/cgroup.procs", str(os.getpid()))
    assert group.names(layout=layout) == set()


def test_version_1_has_a_group_in_every_hierarchy(tmp_path, monkeypatch):
    """One directory for each mount, a cpuset that takes processes, limits where they belong."""
    files = ("cgroup.procs", "tasks", "memory.limit_in_bytes", "cpu.cfs_quota_us",
             "cpu.cfs_period_us", "pids.max", "cpuset.cpus", "cpuset.mems")  # fmt: skip
    tree = Tree(tmp_path, (), monkeypatch)
    tree.files = files
    both, memory, cpuset = (str(tmp_path / n) for n in ("cpu,cpuacct", "memory", "cpuset"))
    for path in (both, memory, cpuset):
        os.mkdir(path, 0o755)
    layout = Layout((("cpu", both), ("cpuacct", both), ("memory", memory), ("cpuset", cpuset)))
    limits = Limits(memory=1 << 20, cpu_quota=5000, cpuset_cpus="1", tasks=0)
    made = group.create("s1", limits, layout=layout)
    assert made.paths == tuple(f"{p}/kata/s1" for p in (both, memory, cpuset))
    assert made.entry().cgroup_tasks == tuple(f"{p}/tasks" for p in made.paths)
    assert tree.written() == [
        ("/cpuset/kata/cpuset.cpus", "0-1"),
        ("/cpuset/kata/cpuset.mems", "0-1"),
        ("/cpuset/kata/s1/cpuset.cpus", "0-1"),
        ("/cpuset/kata/s1/cpuset.mems", "0-1"),
        ("/memory/kata/s1/memory.limit_in_bytes", "1048576"),
        ("/cpu,cpuacct/kata/s1/cpu.cfs_period_us", "100000"),
        ("/cpu,cpuacct/kata/s1/cpu.cfs_quota_us", "5000"),
        ("/cpuset/kata/s1/cpuset.cpus", "1"),
    ]
    left = group.existing("s1", layout=layout)
    assert set(left.paths) == set(made.paths)
    left.remove()
    assert group.existing("s1", layout=layout).paths == ()


def test_processes_are_moved_only_if_they_are_not_in_it(tmp_path):
    """Moving is dear: what is inside already is left alone."""
    (tmp_path / "cgroup.procs").write_text("7\n")
    made = group.Group((str(tmp_path),), [], 1)
    made.enter([7])
    assert (tmp_path / "cgroup.procs").read_text() == "7\n"
    made.enter([8])
    assert (tmp_path / "cgroup.procs").read_text() == "8\n"


@pytest.mark.parametrize(
    ("layout", "warning"),
    [
        (Layout(), "this host has none for memory, pids"),
        (Layout((("memory", "/nowhere"),)), "/nowhere/kata"),
        (Layout((), "/proc/self", ("memory",)), "this host has none for pids"),
    ],
)
def test_a_host_without_usable_groups_gives_warnings_only(layout, warning):
    """Nothing is raised; what cannot be done is said, and there is nothing to enter."""
    made = group.create("s1", for_machine(512), layout=layout)
    assert any(warning in w for w in made.warnings)
    assert made.paths == ()
    assert made.entry() == group.Entry()
    made.remove()
