"""Which containers share a template, and what is left to tell one that is settled."""

import json

import pytest

from kata.oci.defaults import ContainerRequest, ProcessRequest, Resources
from kata.oci.options import Rlimit
from kata.oci.users import User
from kata.runtime import planning
from kata.runtime.request import RunRequest
from kata.wire.agent_api import Seccomp
from kata.wire.record import replace

PROCESS = ProcessRequest(args=("echo", "a"), env=("A=b",))
REQUEST = RunRequest(
    id="one", name="one", image="i", container=ContainerRequest(process=PROCESS, hostname="one"),
    layers=("/layer",), files=(("/etc/hosts", b"x"),),
)  # fmt: skip
FILTER = Seccomp(bpf=bytes(8))


def changed(request=REQUEST, *, container=None, **process) -> RunRequest:
    """The request with other things asked for."""
    inner = replace(request.container, process=replace(request.container.process, **process))
    return replace(request, container=replace(inner, **(container or {})))


def name(request, seccomp=FILTER) -> str:
    return planning.preparation(request, 4, seccomp)[0]


def test_what_differs_from_run_to_run_is_in_no_name():
    """Another program, environment, name or limit needs no other template."""
    other = changed(
        container={"hostname": "two", "resources": Resources(pids=9)}, args=("ls",), env=()
    )
    assert name(replace(other, id="two", files=(("/etc/hosts", b"y"),))) == name(REQUEST)


@pytest.mark.parametrize(
    "other",
    [
        changed(user=User(uid=7)), changed(cwd="/x"), replace(REQUEST, layers=("/other",)),
        replace(REQUEST, files=(("/etc/x", b"x"),)),
    ],
)  # fmt: skip
def test_what_is_settled_is_in_the_name(other):
    """Another user, directory, file or layer is another template; so is another filter."""
    assert planning.is_settled(other)
    assert name(other) != name(REQUEST)
    assert name(REQUEST, Seccomp(bpf=bytes(16))) != name(REQUEST)


@pytest.mark.parametrize(
    "other",
    [
        changed(terminal=True), changed(rlimits=(Rlimit("nofile", 1, 1),)),
        changed(no_new_privileges=True), changed(container={"cap_drop": ("ALL",)}),
        changed(container={"cap_add": ("NET_RAW",)}), replace(REQUEST, seccomp="unconfined"),
        replace(REQUEST, init=True), replace(REQUEST, domainname="d"),
    ],
)  # fmt: skip
def test_peculiar_processes_share_a_root_only(other):
    """Their template knows no process: all of them have the same."""
    assert not planning.is_settled(other)
    peculiar, prepared = planning.preparation(other, 4, None)
    assert peculiar == name(changed(terminal=True), None) != name(REQUEST)
    assert "process" not in json.loads(prepared.spec)


def test_a_settled_container_is_told_its_program_only():
    """No configuration is sent; limits are, without the devices that everyone has."""
    limited = changed(container={"resources": Resources(pids=9)})
    plan = planning.storage_plan(limited.layers, (), 4)
    spec = planning.specification(limited, plan)
    told = planning.order(limited, plan, spec, FILTER, settled=True)
    assert (told.spec, told.storages, told.seccomp) == (b"", [], None)
    assert told.program.args == b"echo\0a\0"
    assert b"A=b\0" in told.program.env
    assert json.loads(told.program.resources) == {"pids": {"limit": 9}}
    whole = planning.order(limited, plan, spec, FILTER, settled=False)
    assert whole.program is None
    assert json.loads(whole.spec) == spec
