"""Names: the real agent in one namespace, a resolver in another, and what passes between them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from kata.linux.namespaces import Inside
from kata.runtime.names import Names
from kata.runtime.rpc import Client
from kata.wire import agent_api as api
from kata.wire import dns
from support.agent import AgentProcess, cgroup_root, remove_group
from support.host import need_root

if TYPE_CHECKING:
    from support.netns import Namespace

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
                size = file.read(2)
                if not size:
                    return
                peer.sendall(dns.framed(self.answer(file.read(int.from_bytes(size, "big")))))

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

    def ask(self, how, query=QUERY, *, where=None, port=53):
        """Ask as a container does; the answer, and the port it came from."""
        argv = [sys.executable, "-ISc", ASK, f"{self.cgroup}/c1", query.hex(), how, str(port)]
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
