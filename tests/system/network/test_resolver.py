"""Names: the real agent in one namespace, a resolver in another, and what passes between them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading

import pytest

from kata.errors import GuestError, ProtocolError, WrongState
from kata.linux.namespaces import Inside
from kata.network import resolver
from kata.runtime.names import Names
from kata.runtime.rpc import Client
from kata.wire import agent_api as api
from kata.wire import dns
from support.agent import AgentProcess, cgroup_root, remove_group
from support.host import need_root
from support.netns import Namespace, until

HERE = ("127.0.0.11", 53)
QUERY = b"\x12\x34\x01\x00\x00\x01" + bytes(6) + b"\x01x\x00\x00\x01\x00\x01"
# asks as often as it is told: by datagram with and without connect, by a mapped address, by stream
ASK = """
import os, socket, sys
open(sys.argv[1] + "/cgroup.procs", "w").write(str(os.getpid()))
query, how, port = bytes.fromhex(sys.argv[2]), sys.argv[3], int(sys.argv[4])
family = socket.AF_INET6 if "mapped" in how else socket.AF_INET
address = ("::ffff:" if "mapped" in how else "") + "127.0.0.11", port
sock = socket.socket(family, socket.SOCK_STREAM if "stream" in how else socket.SOCK_DGRAM)
sock.settimeout(5)
if "stream" in how or "connected" in how:
    sock.connect(address)
if "stream" in how:
    framed = len(query).to_bytes(2, "big") + query
    for byte in framed[:4]: sock.sendall(bytes((byte,)))
    sock.sendall(framed[4:] + framed)
    if "half" in how: sock.shutdown(socket.SHUT_WR)
    file = sock.makefile("rb")
    for _ in range(2):
        answer = file.read(int.from_bytes(file.read(2), "big"))
    print(answer.hex(), port)
elif "connected" in how:
    sock.send(query)
    answer, peer = sock.recvfrom(65535)
    print(answer.hex(), peer[1])
else:
    sock.sendto(query, address)
    answer, peer = sock.recvfrom(65535)
    print(answer.hex(), peer[1])
"""


class Server:
    """A resolver in a namespace: it answers with the query, its first flag changed, and a tail."""

    def __init__(self, namespace: Namespace, tail: bytes = b"tail") -> None:
        with Inside(namespace.fd):
            self.datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self.listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.tail, self.seen, self.silent = tail, [], False
        self.datagrams.bind(HERE)
        self.listener.bind(HERE)
        self.listener.listen()
        self.threads = [threading.Thread(target=t) for t in (self._datagrams, self._streams)]
        for thread in self.threads:
            thread.start()

    def answer(self, query: bytes) -> bytes:
        self.seen.append(query)
        return query[:2] + b"\x81" + query[3:] + self.tail

    def _datagrams(self) -> None:
        while True:
            query, peer = self.datagrams.recvfrom(65535)
            if not query:
                return
            answer = self.answer(query)
            if not self.silent:
                self.datagrams.sendto(answer, peer)

    def _streams(self) -> None:
        while True:
            peer, _ = self.listener.accept()
            with peer, peer.makefile("rb") as file:
                if not self._stream(peer, file):
                    return

    def _stream(self, peer: socket.socket, file) -> int:
        """Answer until the peer hangs up; how many queries there were."""
        count = 0
        while size := file.read(2):
            count += 1
            peer.sendall(dns.framed(self.answer(file.read(int.from_bytes(size, "big")))))
        return count

    def close(self, namespace: Namespace) -> None:
        with Inside(namespace.fd):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                sock.sendto(b"", HERE)
            socket.create_connection(HERE).close()
        for thread in self.threads:
            thread.join(5)
        self.datagrams.close()
        self.listener.close()


class Pair:
    """The agent in a namespace that stands for the guest's, and the host's side of it."""

    def __init__(self, directory: str, host: Namespace, guest: Namespace) -> None:
        self.host, self.guest = host, guest
        self.cgroup = cgroup_root()
        os.mkdir(f"{self.cgroup}/c1")
        with Inside(guest.fd):
            self.agent = AgentProcess(f"{directory}/run", self.cgroup, isolated=False)
        self.client = Client(self.agent.socket)
        self.failures: list[object] = []
        self.names = Names(self.client, host.fd, self.failures.append)
        self.client.call("SetClock", api.SetClockRequest(realtime_ns=1))

    def ask(self, how: str, *, where: Namespace | None = None, port: int = 53):
        """Ask as a container does; the answer, and the port it came from."""
        argv = [sys.executable, "-ISc", ASK, f"{self.cgroup}/c1", QUERY.hex(), how, str(port)]
        with Inside((where or self.guest).fd):
            process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        out, err = process.communicate(timeout=20)
        assert process.returncode == 0, err.decode()
        answer, port = out.split()
        return bytes.fromhex(answer.decode()), int(port)

    def close(self) -> tuple[str, str]:
        self.client.close()
        self.names.close()
        said = self.agent.close()
        remove_group(self.cgroup)
        return said


@pytest.fixture
def pair(directory, pod, outside):
    """Both sides: ``outside`` is the guest."""
    need_root()
    made = Pair(directory, pod, outside)
    yield made
    _, err = made.close()
    assert not err, err


@pytest.fixture
def server(pod):
    """A resolver in the sandbox's namespace."""
    made = Server(pod)
    yield made
    made.close(pod)


HOW = ["datagram", "datagram connected", "datagram mapped", "datagram connected mapped",
       "stream", "stream half", "stream mapped"]  # fmt: skip


@pytest.mark.parametrize("how", HOW)
def test_answers_come_from_the_address_and_port_that_was_asked(pair, server, how):
    """However a container asks, the resolver in the sandbox's namespace answers it."""
    answer, port = pair.ask(how)
    assert answer == QUERY[:2] + b"\x81" + QUERY[3:] + b"tail"
    assert port == 53
    assert set(server.seen) == {QUERY}


def test_the_largest_answers_and_many_at_once(pair, server):
    """Answers as long as they can be come over streams; more questions than fit are not lost."""
    server.tail = bytes(dns.MAX_SIZE - len(QUERY))
    assert len(pair.ask("stream")[0]) == dns.MAX_SIZE
    server.tail = b""
    askers = [threading.Thread(target=pair.ask, args=(how,)) for how in HOW * 3]
    for asker in askers:
        asker.start()
    for asker in askers:
        asker.join(30)
    assert len(server.seen) == 2 + 3 * (4 + 2 * 3)


def test_nobody_there_is_said_at_once(pair):
    """Where no resolver listens, the answer is that the server failed, by either way."""
    for how in ("datagram", "stream"):
        answer, _ = pair.ask(how)
        assert answer == dns.failure(QUERY)
        assert answer[3] & 15 == 2


def test_other_ports_namespaces_and_binds_are_left_alone(pair, server, outside):
    """A container may serve names at all its addresses itself; other namespaces are not meant."""
    with Inside(outside.fd):
        taken = [socket.socket(socket.AF_INET, kind) for kind in (1, 2)]
    for sock in taken:
        sock.bind(("0.0.0.0", 53))
    taken[0].listen()
    assert pair.ask("datagram")[0].endswith(b"tail")
    for sock in taken:
        sock.close()
    other = Namespace()
    mine = Server(other, b"mine")
    try:
        for how in ("datagram", "stream"):
            assert pair.ask(how, where=other)[0].endswith(b"mine")
    finally:
        mine.close(other)
        other.close()
    with Inside(outside.fd):
        echo = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    echo.bind(("127.0.0.11", 5353))
    asker = threading.Thread(target=lambda: echo.sendto(b"own", echo.recvfrom(99)[1]))
    asker.start()
    assert pair.ask("datagram", port=5353) == (b"own", 5353)
    asker.join(5)
    echo.close()


def test_what_is_no_query_reaches_nobody(pair, server, outside):
    """Short and senseless datagrams are dropped in the guest, and such connections closed."""
    with Inside(outside.fd):
        sockets = [socket.socket(socket.AF_INET, kind) for kind in (2, 1)]
    with open(f"{pair.cgroup}/c1/cgroup.procs", encoding="ascii") as file:
        assert not file.read()
    port = _port(outside)
    sockets[0].sendto(b"short", ("127.0.0.11", port))
    sockets[0].sendto(dns.failure(QUERY), ("127.0.0.11", port))
    sockets[1].connect(("127.0.0.11", port))
    sockets[1].sendall(bytes(2))
    sockets[1].settimeout(5)
    assert sockets[1].recv(1) == b""
    for sock in sockets:
        sock.close()
    pair.ask("datagram")
    assert server.seen == [QUERY]


def test_connections_that_idle_make_room(pair, server, outside):
    """The connection that was idle longest is closed for a new one; all are bounded."""
    port = _port(outside)
    idle = []
    for _ in range(40):
        with Inside(outside.fd):
            idle.append(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
        idle[-1].connect(("127.0.0.11", port))
        idle[-1].settimeout(5)
    assert idle[0].recv(1) == b""
    idle[-1].sendall(dns.framed(QUERY))
    assert idle[-1].recv(2)
    assert server.seen == [QUERY]
    for sock in idle:
        sock.close()


def test_a_second_listener_is_refused(pair):
    """The host asks for names once."""
    stream = pair.client.stream("Resolve", api.ResolveRequest(address="127.0.0.11", port=53))
    with pytest.raises(WrongState, match="already"):
        stream.result(10)


def test_a_guest_that_cannot_is_told_of(directory, pod, outside):
    """Without control groups nothing can be redirected: that is an error, and no more."""
    with Inside(outside.fd):
        agent = AgentProcess(f"{directory}/run", f"{directory}/cgroup", isolated=False)
    client = Client(agent.socket)
    failures: list[object] = []
    names = Names(client, pod.fd, failures.append)
    until(lambda: failures)
    assert isinstance(failures[0], GuestError)
    assert client.call("SetClock", api.SetClockRequest(realtime_ns=5)).realtime_ns > 5
    client.close()
    names.close()
    agent.close()


def _port(namespace: Namespace) -> int:
    """Where the agent listens, as the kernel's table has it."""
    line = next(line for line in namespace("ss", "-uHlna").splitlines() if "127.0.0.11:" in line)
    return int(line.partition("127.0.0.11:")[2].split()[0])


class Asking:
    """The host's resolver without a guest."""

    def __init__(self, namespace: Namespace) -> None:
        self.answers: list[api.NameMessage] = []
        self.resolver = resolver.Resolver(os.dup(namespace.fd), self.answers.append)

    def ask(self, number: int, *, stream: bool = False) -> None:
        query = number.to_bytes(2, "big") + QUERY[2:]
        self.resolver.ask(api.NameMessage(number=number, stream=stream, message=query))


@pytest.fixture
def asking(pod):
    """The host's side in the sandbox's namespace."""
    made = Asking(pod)
    yield made
    made.resolver.close()


def test_a_resolver_that_is_silent_is_given_up(asking, server, monkeypatch):
    """After its time a query is answered with nothing, and there is room for others."""
    monkeypatch.setattr(resolver, "TIMEOUT_S", 0.2)
    server.silent = True
    for number in range(dns.MOST_QUERIES):
        asking.ask(number)
    until(lambda: len(asking.answers) == dns.MOST_QUERIES)
    assert {answer.message for answer in asking.answers} == {b""}
    assert {answer.number for answer in asking.answers} == set(range(dns.MOST_QUERIES))
    server.silent = False
    asking.ask(1)
    until(lambda: asking.answers[-1].message)


def test_more_than_was_agreed_is_a_breach(asking, server):
    """A guest that asks more at once, the same twice, or no question, breaks the protocol."""
    server.silent = True
    asking.ask(0)
    with pytest.raises(ProtocolError, match="at once"):
        asking.ask(0)
    for number in range(1, dns.MOST_QUERIES):
        asking.ask(number)
    with pytest.raises(ProtocolError, match="at once"):
        asking.ask(dns.MOST_QUERIES)
    with pytest.raises(ProtocolError, match="no query"):
        asking.resolver.ask(api.NameMessage(number=999, message=b"x"))


def test_nothing_stays_open(asking, server):
    """The sockets that ask are gone with the answers, whichever way was asked."""
    before = len(os.listdir("/proc/self/fd"))
    for number in range(5):
        asking.ask(number, stream=bool(number & 1))
    until(lambda: len(asking.answers) == 5)
    until(lambda: len(os.listdir("/proc/self/fd")) <= before)
    assert sorted(answer.stream for answer in asking.answers) == [False] * 3 + [True] * 2
