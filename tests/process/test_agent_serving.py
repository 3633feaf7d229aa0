"""The real agent's loop over a socket pair, without privileges: requests, refusals, connections."""

from __future__ import annotations

import os
import time

import pytest

from kata import errors
from kata.runtime.rpc import Client
from kata.wire import agent_api as api
from kata.wire.ttrpc import Connection, Response, frame
from support.agent import AgentProcess


@pytest.fixture
def agent(directory):
    """An agent that can make nothing, for it has no control groups and need not be root."""
    found = AgentProcess(f"{directory}/run", f"{directory}/cgroup", isolated=False)
    found.ended = None
    yield found
    if found.ended is None:
        found.ended = found.close()
    assert not found.ended[1]


@pytest.fixture
def client(agent):
    """A client of it."""
    found = Client(agent.socket)
    yield found
    found.close()


def answers(sock, wanted: int) -> list[Response]:
    """Read so many answers from a raw connection."""
    connection, found = Connection(), []
    sock.settimeout(20)
    while len(found) < wanted:
        found += connection.receive(sock.recv(65536))
    return found


def test_configure_makes_the_machine_itself(agent, client):
    """Entropy first, then clock and names; the answer says what the guest is."""
    answer = client.call(
        "Configure",
        api.ConfigureRequest(
            api_hash=api.api_hash(), realtime_ns=123, entropy=bytes(64), hostname="vm",
            machine_id="0" * 32,
        ),
    )  # fmt: skip
    assert answer.api_hash == api.api_hash()
    assert answer.kernel_release == os.uname().release
    assert answer.cpus == os.cpu_count()
    client.close()
    agent.ended = agent.close()
    assert agent.ended[0].split("\n")[:3] == ["entropy 64", "clock 123", f"names vm {'0' * 32}"]


def test_another_api_is_refused_and_nothing_is_set(agent, client):
    """A host with another table of messages gets a clear error with a hint."""
    with pytest.raises(errors.InvalidInput, match="does not fit") as caught:
        client.call("Configure", api.ConfigureRequest(api_hash="old", realtime_ns=1))
    assert "kata guest build" in caught.value.hint
    client.close()
    agent.ended = agent.close()
    assert "clock" not in agent.ended[0]


@pytest.mark.parametrize(
    ("method", "request_", "error"),
    [
        ("StartContainer", api.ContainerRequest(container_id="x"), errors.NotFound),
        ("Wait", api.ProcessRequest(container_id="x"), errors.NotFound),
        ("Delete", api.DeleteRequest(container_id="x"), errors.NotFound),
        ("Signal", api.SignalRequest(container_id="x", signal=99), errors.InvalidInput),
        ("Resize", api.ResizeRequest(rows=1 << 20), errors.InvalidInput),
        ("Exec", api.ExecRequest(container_id="x", process=b"{}"), errors.NotFound),
        ("CreateContainer", api.CreateContainerRequest(), errors.InvalidInput),
        ("CreateContainer", api.CreateContainerRequest(container_id="a/b"), errors.InvalidInput),
        ("CreateContainer", api.CreateContainerRequest(container_id="a"), errors.InvalidInput),
        (
            "CreateContainer",
            api.CreateContainerRequest(container_id="a", spec=b"[]"),
            errors.InvalidInput,
        ),
        ("Prepare", api.PrepareRequest(modules=["../x"]), errors.InvalidInput),
        ("Prepare", api.PrepareRequest(modules=["no_such_module"]), errors.GuestError),
    ],
)
def test_requests_that_make_no_sense_are_refused(client, method, request_, error):
    """Each gets the error of its kind, and the agent goes on."""
    with pytest.raises(error):
        client.call(method, request_, 10)
    assert client.call("SetClock", api.SetClockRequest(realtime_ns=5)).realtime_ns > 5


def test_a_stream_of_nothing_is_refused(client):
    """Opening a stream of a process that does not exist ends with the error."""
    stream = client.stream("ReadOutput", api.StreamRequest(container_id="x", stream=1))
    assert stream.read() == b""
    with pytest.raises(errors.NotFound):
        stream.result(10)
    with pytest.raises(errors.InvalidInput):
        client.stream("ReadOutput", api.StreamRequest(container_id="x")).result(10)


def test_unknown_methods_and_services(agent):
    """A method or service that is not there is said to be so."""
    connection = Connection()
    for service, method in ((api.SERVICE, "Nope"), ("other.Service", "Wait")):
        agent.socket.sendall(connection.request(service, method, b"")[1])
    found = answers(agent.socket, 2)
    assert [type(answer.error) for answer in found] == [errors.Unsupported] * 2


def test_a_malformed_message_is_an_answer_not_an_end(agent):
    """A payload that is no protobuf is refused; data of unknown streams is passed over."""
    connection = Connection()
    agent.socket.sendall(connection.request(api.SERVICE, "Wait", b"\xff\xff\xff")[1])
    agent.socket.sendall(Connection.data(77, b"stray"))
    body = api.SetClockRequest(realtime_ns=1).encode()
    agent.socket.sendall(connection.request(api.SERVICE, "SetClock", body)[1])
    first, second = answers(agent.socket, 2)
    assert isinstance(first.error, errors.ProtocolError)
    assert second.error is None


def test_answers_keep_their_order_however_requests_are_cut(agent):
    """Requests byte by byte, and many at once, are answered in order."""
    connection = Connection()
    body = api.SetClockRequest(realtime_ns=1).encode()
    requests = [connection.request(api.SERVICE, "SetClock", body) for _ in range(200)]
    for at, (_, data) in enumerate(requests):
        if at < 3:
            for byte in data:
                agent.socket.sendall(bytes((byte,)))
    agent.socket.sendall(b"".join(data for _, data in requests[3:]))
    found = answers(agent.socket, 200)
    assert [answer.stream for answer in found] == [number for number, _ in requests]


def test_a_broken_protocol_ends_the_agent_with_a_traceback(agent):
    """Bytes that are no ttRPC are no reason to guess: the agent says why and ends."""
    agent.socket.sendall(frame(1, 9, b"x"))
    agent.socket.settimeout(20)
    assert agent.socket.recv(1) == b""
    out, err = agent.close()
    agent.ended = (out, "")
    assert "ttrpc: unknown message type" in err


def test_a_host_that_hangs_up(agent):
    """The agent notices at once."""
    agent.ended = agent.close()
    assert agent.ended[0] == "hang up\n"


def test_shutdown_is_answered_first(agent, client):
    """The answer leaves before the power goes."""
    client.call("Shutdown", api.Empty(), 10)
    deadline = time.monotonic() + 10
    while agent.process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    client.close()
    agent.ended = agent.close()
    assert agent.ended[0] == "power off\n"
