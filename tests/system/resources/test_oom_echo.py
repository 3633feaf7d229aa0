"""An out-of-memory event in a group of the host, for whoever watches it."""

from __future__ import annotations

import os
import subprocess

import pytest

from kata.linux import cgroups
from kata.resources.group import create
from kata.resources.oom import echo_oom
from kata.resources.plan import Limits
from support.host import need_root


@pytest.fixture
def group():
    """A group with a bystander in it."""
    need_root()
    made = create("bystander", Limits(memory=512 << 20), parent="kata-test-oom")
    process = subprocess.Popen(["sleep", "1000"])
    made.enter([process.pid])
    yield made, process
    process.kill()
    process.wait()
    made.remove()
    for path in made.paths:
        os.rmdir(os.path.dirname(path))


def events(group):
    """How often something was killed in it."""
    path = f"{group.points['memory']}/{group.below}"
    name = "memory.oom_control" if group.version == 1 else "memory.events"
    rows = dict(line.split() for line in cgroups.read(f"{path}/{name}").splitlines())
    return int(rows["oom_kill"]), cgroups.read(
        f"{path}/{'memory.limit_in_bytes' if group.version == 1 else 'memory.max'}"
    ).strip()


def test_the_event_comes_and_nobody_else_is_hurt(group):
    """The kernel counts a kill in the group; the bystander lives, the limit is as before."""
    made, process = group
    before = events(made)
    assert echo_oom(made)
    after = events(made)
    assert after[0] == before[0] + 1
    assert after[1] == before[1]
    assert process.poll() is None


def test_a_group_that_is_gone_is_no_error():
    """The engine may have been quicker."""
    need_root()
    made = create("gone", Limits(memory=64 << 20), parent="kata-test-oom")
    made.remove()
    for path in made.paths:
        os.rmdir(os.path.dirname(path))
    assert not echo_oom(made)
