"""What the guest reads of a specification, and the reports of a child."""

from __future__ import annotations

import marshal
import os

import pytest

from kata.errors import AgentError, CommandNotFound, InvalidInput
from kata.guest import pipes, spawn, spec, staged
from kata.guest.prepared import fits
from kata.linux import syscalls as sc
from kata.linux.devicefilter import compile_rules
from kata.oci.defaults import ContainerRequest, ProcessRequest, container_spec

KINDS = ("mount", "network", "uts", "pid", "ipc", "cgroup")


def test_documents():
    """A JSON object, or an error that says what it should have been."""
    assert spec.document(b'{"a": 1}', "it") == {"a": 1}
    for text in (b"", b"[]", b"{", b"\xff", b"{} x"):
        with pytest.raises(InvalidInput, match="it is not"):
            spec.document(text, "it")


def test_environment():
    """The last of two equal names holds; what is no assignment is refused."""
    assert spec.environment({"env": ["A=1", "B=", "A=2=3"]}) == {"A": "2=3", "B": ""}
    for entry in ("A", "=x", "A=\0"):
        with pytest.raises(InvalidInput):
            spec.environment({"env": [entry]})


def test_arguments():
    """There must be some, the first not empty."""
    assert spec.arguments({"args": ["a", ""]}) == ["a", ""]
    with pytest.raises(InvalidInput):
        spec.arguments({})
    with pytest.raises(CommandNotFound):
        spec.arguments({"args": [""]})


@pytest.mark.parametrize("name", ["", "a/b", "x" * 256, "a\nb"])
def test_identifiers(name):
    """Ids are bounded and plain."""
    with pytest.raises(InvalidInput):
        spec.identifier(name, "id")


def test_namespaces_and_clone_flags():
    """New namespaces are flags of clone(2), joined ones are not; cgroup is entered later."""
    listed = [{"type": k} for k in KINDS] + [{"type": "time", "path": "/proc/7/ns/time"}]
    wanted = spec.namespaces({"linux": {"namespaces": listed}})
    assert wanted == {**dict.fromkeys(KINDS, ""), "time": "/proc/7/ns/time"}
    flags = spawn.flags_for(wanted)
    assert flags & sc.CLONE_NEWPID
    assert flags & sc.CLONE_NEWNS
    assert not flags & sc.CLONE_NEWCGROUP


def test_what_a_parked_child_fits():
    """Shared network, ipc and uts can be joined later; its pid, mounts and cgroup are its own."""
    everything = dict.fromkeys(KINDS, "")
    assert fits(everything, [])
    assert fits({k: v for k, v in everything.items() if k not in ("network", "ipc")}, [])
    assert not fits({**everything, "pid": "/proc/1/ns/pid"}, [])
    assert not fits({k: v for k, v in everything.items() if k != "pid"}, [])
    assert not fits({**everything, "time": ""}, [])


def test_reports_arrive_however_they_are_cut():
    """Tuples come out whole; too large a claim is an error."""
    body = marshal.dumps(("ready",))
    data = (len(body).to_bytes(4, "little") + body) * 2
    reports = pipes.Reports()
    found = [item for byte in data for item in reports.receive(bytes((byte,)))]
    assert found == [("ready",), ("ready",)]
    with pytest.raises(AgentError):
        pipes.Reports().receive(b"\xff\xff\xff\xff")


def test_errors_cross_the_pipe():
    """A child's error arrives as the same class with the same words."""
    read, write = os.pipe()
    try:
        pipes.report_failure(write, CommandNotFound("exec: no", hint="try"))
        (item,) = pipes.Reports().receive(os.read(read, 4096))
    finally:
        os.close(read)
        os.close(write)
    error = pipes.failure_of(item)
    assert type(error) is CommandNotFound
    assert (str(error), error.hint) == ("exec: no", "try")


def test_a_capability_beyond_dockers_needs_a_fresh_child():
    """What a parked child has dropped for good, no container that wants it grows from."""
    everything = dict.fromkeys(("mount", "pid", "network", "uts", "ipc", "cgroup"), "")
    assert fits(everything, list(staged.CAPABILITIES))
    assert not fits(everything, ["CAP_SYS_ADMIN"])


def test_what_is_staged_is_what_docker_asks_for():
    """Rules, capabilities and kernel parameters prepared are those of the default configuration."""
    config = container_spec(ContainerRequest(ProcessRequest(("sh",)), "host"))
    assert config["linux"]["resources"]["devices"] == staged.DOCKER_RULES
    assert set(config["process"]["capabilities"]["bounding"]) == set(staged.CAPABILITIES)
    assert config["linux"]["sysctl"] == {name: value for name, (value, _) in staged.SYSCTLS.items()}
    assert compile_rules(staged.DOCKER_RULES) == compile_rules(staged.DEVICE_RULES)
