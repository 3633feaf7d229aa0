"""The order of ``kata run`` to a ready sandbox: all of a request, and which requests fit."""

import json

import pytest

from kata.config.settings import build
from kata.oci.defaults import ContainerRequest, ProcessRequest, Resources
from kata.oci.options import Rlimit, Tmpfs, Volume
from kata.oci.users import User
from kata.runtime.request import RunRequest
from kata.runtime.run_order import describe, fits, parse
from kata.wire import quickjson
from kata.wire.record import replace

PROCESS = ProcessRequest(
    ("sh", "-c", "caf\udce9 \N{SNOWMAN}"), ("A=1",), "/w", User(1, 2, (3, 4)), terminal=True,
    console_size=(24, 80), rlimits=(Rlimit("nofile", 1, 2),), umask=0o22,
)  # fmt: skip
CONTAINER = ContainerRequest(
    PROCESS, "host", cap_add=("ALL",), volumes=(Volume("/a", "/b", readonly=True),),
    tmpfs=(Tmpfs("/t", ("size=1k",)),), sysctls=(("a.b", "1"),), resources=Resources(1, 2, 3),
    annotations=(("k", "v"),),
)  # fmt: skip
REQUEST = RunRequest(
    "id", "name", "image", CONTAINER, layers=("/l/0", "/l/1"), passwd="root:x", init=True,
    files=(("/etc/hostname", bytes(range(256))),), stdin=True, logged=True,
)  # fmt: skip


def test_a_request_is_read_back_as_it_was():
    """Every field, by value and by type, through JSON."""
    assert parse(quickjson.loads(quickjson.dumps(describe(REQUEST)))) == REQUEST
    assert json.loads(quickjson.dumps(describe(REQUEST))) == describe(REQUEST)


def asks(**changes):
    """Whether such a request is one for the pool, with four wired disks, 512 MiB, 1 processor."""
    plain = RunRequest("id", "name", "image", CONTAINER, layers=("/l/0",))
    return fits(replace(plain, **changes), build({}))


@pytest.mark.parametrize(
    "changes",
    [
        {"machine_memory": 1024}, {"machine_vcpus": 2}, {"template": False},
        {"layers": ("/0", "/1", "/2", "/3")}, {"machine_memory": 512, "memory_limited": True},
    ],
)  # fmt: skip
def test_what_needs_another_machine_does_not_fit(changes):
    """Memory, processors, disks, and who wants no template."""
    assert not asks(**changes)


def test_what_is_usual_fits():
    """A few layers, or a directory."""
    assert asks()
    assert asks(layers=("/0", "/1", "/2"))
    assert asks(layers=(), rootfs="/r")
    assert asks(machine_memory=400, memory_limited=True)  # beside which its kernel has room
