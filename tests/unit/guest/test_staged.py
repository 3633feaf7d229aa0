"""Which staged mounts a specification can use."""

from __future__ import annotations

from kata.guest import staged
from kata.linux import devicefilter
from kata.oci import defaults

ALL = {"mount", "network", "uts", "pid", "ipc", "cgroup"}


def docker_spec():
    """What ``kata run`` sends when nothing special is asked for."""
    process = defaults.ProcessRequest(args=("true",))
    request = defaults.ContainerRequest(process=process, hostname="box")
    return defaults.container_spec(request)


def choose(mounts, private=ALL, masked=staged.MASKED, readonly=staged.READONLY):
    return staged.choose(mounts, list(masked), list(readonly), private)


def mounts():
    return [
        {"destination": path, "type": kind, "options": list(options)}
        for path, kind, options in staged.MOUNTS
    ]


def test_the_stage_is_what_our_own_defaults_ask_for():
    """A default container finds everything ready: mounts, hidden paths and device rules."""
    spec = docker_spec()
    linux = spec["linux"]
    choice = choose(spec["mounts"], ALL, linux["maskedPaths"], linux["readonlyPaths"])
    assert choice.moved == {"/proc", "/dev", "/sys"}
    assert choice.dropped == ()
    assert choice.ready == {path for path, _, _ in staged.MOUNTS}
    assert choice.masked == set(linux["maskedPaths"])
    assert choice.readonly == set(linux["readonlyPaths"])
    rules = linux["resources"]["devices"]
    staged_program = devicefilter.compile_rules(staged.DEVICE_RULES)
    assert devicefilter.compile_rules(rules) == staged_program


def test_a_mount_that_differs_is_dropped_from_its_top():
    """Another /dev/shm: the staged one goes, /dev stays."""
    wanted = mounts()
    wanted[-1]["options"] = ["size=1m"]
    choice = choose(wanted)
    assert "/dev" in choice.moved
    assert "/dev/shm" in choice.dropped
    assert "/dev/shm" not in choice.ready


def test_a_top_that_differs_takes_all_below_with_it():
    """Another /dev: nothing of the staged /dev is used."""
    wanted = mounts()
    wanted[1]["options"] = []
    choice = choose(wanted)
    assert choice.moved == {"/proc", "/sys"}
    assert not any(path.startswith("/dev") for path in choice.ready)


def test_shared_namespaces():
    """With a shared network the staged /sys is useless, with shared ipc the message queues."""
    choice = choose(mounts(), ALL - {"network"})
    assert choice.moved == {"/proc", "/dev"}
    assert not any(path.startswith("/sys") for path in choice.masked)
    choice = choose(mounts(), ALL - {"ipc"})
    assert "/dev/mqueue" in choice.dropped


def test_masks_not_asked_for_are_taken_away():
    """A privileged container sees what is hidden by default."""
    choice = choose(mounts(), masked=("/proc/kcore",), readonly=())
    assert "/proc/keys" in choice.dropped
    assert "/proc/sys" in choice.dropped
    assert choice.masked == {"/proc/kcore"}


def test_nothing_asked_for():
    """A container without these mounts gets none of them."""
    assert choose([]) == staged.Choice(frozenset(), (), *[frozenset()] * 3)
