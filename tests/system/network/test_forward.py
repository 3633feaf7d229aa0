"""Ports: the real agent in one namespace, the loopback of another, and connections between them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading

import pytest

from kata.errors import AgentError, GuestError, HostError, InvalidInput, ProtocolError
from kata.linux.namespaces import Inside
from kata.linux.steer import Steering
from kata.network.loopback import Loopback
from kata.runtime import forward
from kata.runtime.forward import Forwarder, Passage
from kata.runtime.rpc import Client
from kata.wire import agent_api as api
from kata.wire.flow import WINDOW
from kata.wire.ttrpc import Data
from support.agent import AgentProcess
from support.host import need_root
from support.netns import Namespace, until

V4, V6 = "127.0.0.1", "::1"


def opened() -> int:
    """How many descriptors this process has."""
    return len(os.listdir("/proc/self/fd"))


def threads_of_ours() -> int:
    """How many threads this process has."""
    return len(os.listdir("/proc/self/task"))


def listen(namespace: Namespace, address: str, port: int) -> socket.socket:
    """A listener in a namespace."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with Inside(namespace.fd):
        sock = socket.socket(family)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind((address, port))
    sock.listen(128)
    sock.settimeout(5)
    return sock


def connect(namespace: Namespace, address: str, port: int) -> socket.socket:
    """A connection from inside a namespace."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with Inside(namespace.fd):
        sock = socket.socket(family)
    sock.settimeout(5)
    try:
        sock.connect((address, port))
    except OSError:
        sock.close()
        raise
    return sock


def reset(namespace: Namespace, address: str, port: int) -> None:
    """A connection is reset at once; at times before who connects has looked at it."""
    with pytest.raises(ConnectionResetError), connect(namespace, address, port) as sock:
        sock.recv(1)


def received(sock: socket.socket) -> bytes:
    """All until the end."""
    parts = []
    while data := sock.recv(1 << 16):
        parts.append(data)
    return b"".join(parts)


class Pair:
    """The agent in a namespace that stands for the guest's, and the host's side of it."""

    def __init__(self, directory: str, host: Namespace, guest: Namespace) -> None:
        self.host, self.guest = host, guest
        with Inside(guest.fd):
            self.agent = AgentProcess(f"{directory}/run", f"{directory}/cgroup", isolated=False)
        self.client = Client(self.agent.socket)
        self.forwarder = Forwarder(self.client, host.fd)
        assert self.alive()

    def alive(self) -> bool:
        """Whether the agent answers."""
        return self.client.call("SetClock", api.SetClockRequest(realtime_ns=5)).realtime_ns > 5

    def agent_fds(self) -> int:
        """How many descriptors the agent has."""
        return len(os.listdir(f"/proc/{self.agent.process.pid}/fd"))

    def close(self) -> tuple[str, str]:
        self.client.close()
        self.forwarder.close()
        return self.agent.close()


@pytest.fixture
def pair(directory, pod, outside):
    """Both sides: ``outside`` is the guest."""
    need_root()
    made = Pair(directory, pod, outside)
    yield made
    _, err = made.close()
    assert not err, err


@pytest.mark.parametrize("there", [V4, V6, "0.0.0.0", "::"])
@pytest.mark.parametrize("here", [V4, V6])
def test_a_connection_reaches_what_listens_in_the_guest(pair, pod, outside, here, there):
    """Bytes pass both ways, and each direction ends by itself, first the client's."""
    with listen(outside, there, 8100) as listener, connect(pod, here, 8100) as client:
        client.sendall(b"question")
        client.shutdown(socket.SHUT_WR)
        peer, _ = listener.accept()
        with peer:
            assert received(peer) == b"question"
            peer.sendall(b"answer")
        assert received(client) == b"answer"


def test_the_guest_may_end_first(pair, pod, outside):
    """After the end of the server's direction the client's still passes."""
    with listen(outside, V4, 8100) as listener, connect(pod, V4, 8100) as client:
        peer, _ = listener.accept()
        with peer:
            peer.sendall(b"hello")
            peer.shutdown(socket.SHUT_WR)
            assert received(client) == b"hello"
            client.sendall(b"late")
            client.shutdown(socket.SHUT_WR)
            peer.settimeout(5)
            assert received(peer) == b"late"


def test_many_that_are_short(pair, pod, outside):
    """Each of many connections ends by an end and not by a reset, whoever is quicker."""

    def serve(listener: socket.socket) -> None:
        for number in range(200):
            with listener.accept()[0] as peer:
                peer.settimeout(5)
                assert received(peer) == b"%d" % number
                peer.sendall(b"so %d" % number)

    with listen(outside, V4, 8100) as listener:
        server = threading.Thread(target=serve, args=(listener,))
        server.start()
        for number in range(200):
            with connect(pod, V4, 8100) as client:
                client.sendall(b"%d" % number)
                client.shutdown(socket.SHUT_WR)
                assert received(client) == b"so %d" % number
        server.join(5)
    until(lambda: not pair.forwarder._passages)


def test_nobody_there_ends_the_connection_at_once(pair, pod):
    """A port of nobody's is a connection that is reset, and nothing stays of it."""
    for address in (V4, V6):
        reset(pod, address, 8100)
    until(lambda: not pair.forwarder._passages)
    assert pair.alive()


def test_a_port_of_the_namespace_stays_its_own(pair, pod, outside):
    """What listens in the namespace is not taken away; nor are other addresses."""
    with listen(outside, "0.0.0.0", 8100), listen(pod, "0.0.0.0", 8100) as own:
        with connect(pod, V4, 8100):
            peer, _ = own.accept()
            peer.close()
    with listen(outside, "0.0.0.0", 8101):
        with pytest.raises(ConnectionRefusedError):
            connect(pod, "127.0.0.11", 8101)


def test_a_reset_of_either_end_is_one_of_the_other(pair, pod, outside):
    """Neither end waits for a peer that is gone."""
    hard = (1).to_bytes(4, "little") + bytes(4)
    with listen(outside, V4, 8100) as listener:
        for first in ("client", "peer"):
            ends = {"client": connect(pod, V4, 8100)}
            ends["peer"], _ = listener.accept()
            ends["peer"].settimeout(5)
            ends[first].setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, hard)
            ends.pop(first).close()
            (other,) = ends.values()
            with other, pytest.raises(ConnectionResetError):
                other.recv(1)
    until(lambda: not pair.forwarder._passages)


def test_much_passes_both_ways_at_once(pair, pod, outside):
    """More than any window, of different content, unharmed."""
    one, two = os.urandom(1 << 12) * 900, os.urandom(1 << 12) * 1000
    got = {}

    def exchange(sock: socket.socket, data: bytes, name: str) -> None:
        def say() -> None:
            sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)

        sock.settimeout(60)
        speaker = threading.Thread(target=say)
        speaker.start()
        got[name] = received(sock)
        speaker.join(60)

    with listen(outside, V4, 8100) as listener, connect(pod, V4, 8100) as client:
        peer, _ = listener.accept()
        with peer:
            other = threading.Thread(target=exchange, args=(peer, one, "peer"))
            other.start()
            exchange(client, two, "client")
            other.join(60)
    assert got["client"] == one
    assert got["peer"] == two


def test_who_does_not_read_stops_only_itself(pair, pod, outside):
    """A connection that nobody reads fills its windows; the next one and the agent go on."""
    with listen(outside, V4, 8100) as listener, connect(pod, V4, 8100) as stuck:
        peer, _ = listener.accept()
        for end in (peer, stuck):
            end.settimeout(0.5)
            with pytest.raises(TimeoutError):
                end.sendall(bytes(64 << 20))
        assert pair.alive()
        with connect(pod, V4, 8100) as client:
            second, _ = listener.accept()
            with second:
                second.sendall(b"well")
            assert client.recv(9) == b"well"
        peer.close()


def test_so_many_at_once_and_no_more(pair, pod, outside):
    """What is over the limit is reset; there is room again when others have ended."""
    before, agents = opened(), pair.agent_fds()
    with listen(outside, V4, 8100) as listener:
        clients = [connect(pod, V4, 8100) for _ in range(forward.MOST)]
        peers = [listener.accept()[0] for _ in clients]
        try:
            reset(pod, V4, 8100)
        finally:
            for sock in clients + peers:
                sock.close()
        until(lambda: not pair.forwarder._passages)
        with connect(pod, V4, 8100), listener.accept()[0]:
            pass
    until(lambda: not pair.forwarder._passages)
    until(lambda: opened() <= before)
    until(lambda: pair.agent_fds() <= agents)


def test_all_ends_with_the_guest(directory, pod, outside):
    """When the agent goes, connections are reset, descriptors and filters are gone."""
    need_root()
    state, before = pod.state(), opened()
    threads = threads_of_ours()
    made = Pair(directory, pod, outside)
    try:
        with listen(outside, V4, 8100) as listener, connect(pod, V4, 8100) as client:
            peer, _ = listener.accept()
            with peer:
                made.agent.process.kill()
                with pytest.raises(ConnectionResetError):
                    client.recv(1)
    finally:
        made.close()
    made.forwarder.close()
    assert pod.state() == state
    with pytest.raises(ConnectionRefusedError):
        connect(pod, V4, 8100)
    assert opened() <= before
    until(lambda: threads_of_ours() <= threads)


def test_all_ends_with_the_host(directory, pod, outside):
    """Closing resets what is connected, at both ends."""
    need_root()
    made = Pair(directory, pod, outside)
    try:
        with listen(outside, V4, 8100) as listener, connect(pod, V4, 8100) as client:
            peer, _ = listener.accept()
            with peer:
                made.forwarder.close()
                for end in (client, peer):
                    end.settimeout(5)
                    with pytest.raises(ConnectionResetError):
                        end.recv(1)
        assert made.alive()
    finally:
        made.close()


def test_what_makes_no_sense_is_refused(pair):
    """A port that is none is an error of the request; one of nobody's, one of the guest."""
    for port, error in ((0, InvalidInput), (1 << 16, InvalidInput), (8100, GuestError)):
        stream = pair.client.stream("Forward", api.ForwardRequest(port=port))
        with pytest.raises(error, match=str(port)):
            stream.result(10)


def test_a_guest_that_breaks_the_windows_is_found_out(pair):
    """More bytes than were granted, more room than was taken, bytes after the end."""
    ours, other = socket.socketpair()
    grant = (1).to_bytes(4, "big")
    breaches = [
        [api.ForwardMessage(data=bytes(WINDOW)), api.ForwardMessage(data=b"x")],
        [api.ForwardMessage(grant=grant)],
        [api.ForwardMessage(grant=b"x")],
        [api.ForwardMessage(end=True), api.ForwardMessage(data=b"x")],
    ]
    for messages in breaches:
        passage = Passage(pair.client, ours, lambda _: None)
        for message in messages[:-1]:
            passage.arrived(Data(1, message.encode()))
        with pytest.raises(ProtocolError):
            passage.arrived(Data(1, messages[-1].encode()))
    ours.close()
    other.close()


def test_an_end_that_comes_meanwhile_is_an_end(pair, monkeypatch):
    """What the guest says last while a step is under way is passed on, then all is closed."""
    ours, other = socket.socketpair()
    passage = Passage(pair.client, ours, lambda _: None)
    passage._read_all = True
    passage.arrived(Data(1, api.ForwardMessage(data=b"last").encode()))
    deliver = passage._deliver

    def and_meanwhile() -> None:
        deliver()
        monkeypatch.undo()
        passage.arrived(Data(1, api.ForwardMessage(end=True).encode()))
        passage.arrived(Data(1, b"", closed=True))
        passage.finish(b"", None)

    with other:
        monkeypatch.setattr(passage, "_deliver", and_meanwhile)
        passage.step(0)
        assert not passage.gone
        passage.step(0)
        assert passage.gone
        assert passage._shut
        assert received(other) == b"last"


def test_a_killed_predecessor_is_no_hindrance(pod):
    """What it left in the namespace steers nobody, and the next one takes the place."""
    need_root()
    script = (
        "import os, sys\nsys.path.insert(0, sys.argv[1])\n"
        "from kata.network.loopback import Loopback\n"
        "kept = Loopback(int(sys.argv[2]))\nos.kill(os.getpid(), 9)\n"
    )
    source = os.path.dirname(os.path.dirname(os.path.dirname(forward.__file__)))
    argv = [sys.executable, "-c", script, source, str(pod.fd)]
    assert subprocess.run(argv, pass_fds=[pod.fd], timeout=20).returncode == -9
    assert "kata" in pod("tc", "filter", "show", "dev", "lo", "ingress")
    with pytest.raises(ConnectionRefusedError):
        connect(pod, V4, 8100)
    with_next = Loopback(pod.fd)
    with connect(pod, V4, 8100):
        until(lambda: _accepted(with_next.listeners[0]) == (V4, 8100))
    with_next.close()
    assert "kata" not in pod("tc", "filter", "show", "dev", "lo", "ingress")


def _accepted(listener) -> object:
    """The address that the next connection was meant for."""
    try:
        fd, _ = listener._accept()
    except BlockingIOError:
        return None
    with socket.socket(fileno=fd) as sock:
        return sock.getsockname()


@pytest.mark.parametrize("kind", ["clsact", "ingress"])
def test_filters_of_others_stay(pod, kind):
    """A place for filters that was there is used, and left as it was."""
    need_root()
    pod("tc", "qdisc", "add", "dev", "lo", kind)
    before = pod.state()
    loopback = Loopback(pod.fd)
    with connect(pod, V6, 8100):
        until(lambda: (_accepted(loopback.listeners[1]) or ())[:2] == (V6, 8100))
    loopback.close()
    assert pod.state() == before
    assert not pod("tc", "filter", "show", "dev", "lo", "ingress").strip()


def test_without_ipv6(pod):
    """A namespace without IPv6 has its ports at IPv4 alone."""
    need_root()
    pod("sysctl", "-qw", "net.ipv6.conf.lo.disable_ipv6=1")
    loopback = Loopback(pod.fd)
    assert [sock.family for sock in loopback.listeners] == [socket.AF_INET]
    with connect(pod, V4, 8100):
        pass
    loopback.close()


def test_what_the_kernel_refuses_is_said_and_nothing_is_left(pod, monkeypatch):
    """Where no classifier can be had that is an error with its reason."""
    need_root()
    before, state = opened(), pod.state()
    monkeypatch.setattr("kata.linux.steer._KIND", 9999)
    with pytest.raises(HostError, match="cannot be forwarded"):
        Loopback(pod.fd)
    assert opened() == before
    assert pod.state() == state
    with Inside(pod.fd), pytest.raises(OSError, match="classifier"):
        Steering({socket.AF_INET: 1})
    assert pod.state() == state


def test_a_guest_that_went_before(directory, pod, outside):
    """A connection that comes when the agent has just gone is reset."""
    need_root()
    made = Pair(directory, pod, outside)
    made.agent.process.kill()
    made.agent.process.wait()
    try:
        with connect(pod, V4, 8100) as client:
            assert client.recv(1) == b""
    except ConnectionError:
        pass
    with pytest.raises(AgentError):
        made.client.call("SetClock", api.SetClockRequest(realtime_ns=5))
    made.close()
