"""What of a connection goes along when a ready sandbox takes a shim's place."""

import socket

from kata.shim.empty import after, arrived
from kata.wire.containerd_sandbox import CreateSandboxRequest
from kata.wire.containerd_types import SANDBOX_SERVICE
from kata.wire.ttrpc import Connection, Request


def test_a_call_and_what_comes_behind_it():
    """What was answered stays behind; the rest is read as it came, a half message too."""
    peer = Connection()
    asked = CreateSandboxRequest(sandbox_id="pod", netns_path="/n").encode()
    _, first = peer.request(SANDBOX_SERVICE, "PingSandbox", b"")
    number, create = peer.request(SANDBOX_SERVICE, "CreateSandbox", asked)
    _, more = peer.request(SANDBOX_SERVICE, "Platform", b"x" * 300)
    whole = first + create + more
    assert after(whole, 0) == whole
    assert after(whole, 3) == b""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        found = arrived(ours, after(whole, 1)[:-7])
        assert (found.stream, found.request.netns_path) == (number, "/n")
        assert [event.method for event in found.events] == ["CreateSandbox"]
        [last] = found.connection.receive(more[-7:])
        assert isinstance(last, Request)
        assert (last.method, last.payload) == ("Platform", b"x" * 300)
