"""Control groups on the kernel's real hierarchies: born in them, accounted, removed."""

from __future__ import annotations

import os
import subprocess
import time

import pytest

from kata.linux import cgroups, confine
from kata.resources import group
from kata.resources.plan import for_machine
from support import host

NAME = f"test-{os.getpid()}"
PARENT = "kata-tests"


def layouts():
    """The host's groups, and its version 2 alone where there is one beside version 1."""
    found = cgroups.detect()
    both = [found]
    if found.version == 1 and found.unified:
        given = cgroups.read(f"{found.unified}/cgroup.controllers").split()
        both.append(cgroups.Layout((), found.unified, tuple(given)))
    return both


@pytest.fixture(params=layouts(), ids=lambda layout: f"version {layout.version}")
def layout(request):
    if not request.param.version:
        host.lacks("a control group file system")
    yield request.param
    for point in {p for _, p in request.param.v1} | {request.param.unified} - {""}:
        if os.path.isdir(f"{point}/{PARENT}"):
            cgroups.kill(f"{point}/{PARENT}")
            assert cgroups.remove([f"{point}/{PARENT}"]) == []


def make(layout):
    made = group.create(NAME, for_machine(512, 1.5), parent=PARENT, layout=layout)
    assert made.paths
    return made


def sleeper(entry):
    binds, links = confine.program_root("/bin/sleep")
    confinement = confine.Confinement(
        uid=65534, gid=65534, binds=binds, links=links,
        cgroup=entry.cgroup, cgroup_tasks=entry.cgroup_tasks,
    )  # fmt: skip
    process = confine.spawn(["/bin/sleep", "100"], confinement, fds={}, env={})
    process.confirm()
    return process


def test_a_confined_process_is_born_in_its_group(layout):
    """From its first instruction the process is in every hierarchy of the group."""
    made = make(layout)
    process = sleeper(made.entry())
    try:
        assert [cgroups.members(path) for path in made.paths] == [[process.pid]] * len(made.paths)
    finally:
        process.kill()
        process.wait()
        process.close()
        made.remove()
    assert not any(os.path.exists(path) for path in made.paths)
    assert not [w for w in made.warnings if "this host has none" not in w]


def test_a_running_process_can_be_moved_in(layout):
    """What was started before the group is moved; a process that has ended is no matter."""
    made = make(layout)
    with subprocess.Popen(["sleep", "100"]) as process:
        made.enter([process.pid, 1 << 22])
        assert process.pid in cgroups.members(made.paths[0])
        process.kill()
    made.remove()
    assert not any(os.path.exists(path) for path in made.paths)


def test_removal_kills_what_is_left_and_can_be_repeated(layout):
    """A group found again by its name is emptied and removed, with groups below it."""
    made = make(layout)
    entry = made.entry()
    process = sleeper(entry)
    os.mkdir(f"{made.paths[0]}/below")
    left = group.existing(NAME, parent=PARENT, layout=layout)
    assert set(left.paths) == set(made.paths)
    assert NAME in group.names(parent=PARENT, layout=layout)
    left.remove()
    left.remove()
    assert left.warnings == []
    assert process.wait() == -9
    process.close()
    made.remove()
    assert group.existing(NAME, parent=PARENT, layout=layout).paths == ()


def test_limits_are_what_was_asked(layout):
    """The kernel gives back the limits that were written."""
    made = make(layout)
    expected = {
        "memory.limit_in_bytes": 672 << 20, "memory.max": 672 << 20,
        "cpu.cfs_quota_us": 150_000, "pids.max": 4096,
    }  # fmt: skip
    found = {
        file: int(text)
        for path in made.paths
        for file in expected
        if (text := cgroups.read(f"{path}/{file}").strip())
    }
    made.remove()
    assert found == {file: expected[file] for file in found}
    if layout.version == 1:
        assert len(found) == 3


def test_a_forking_crowd_is_killed(layout):
    """Processes that fork while they are killed do not escape."""
    made = make(layout)
    script = "while :; do sleep 0.01 & done"
    with subprocess.Popen(["sh", "-c", script], stderr=subprocess.DEVNULL) as process:
        made.enter([process.pid])
        time.sleep(0.1)
        made.kill()
    made.remove()
    assert made.paths
    assert not any(os.path.exists(path) for path in made.paths)
