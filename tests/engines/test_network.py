"""The engines' networks: published ports, names, addresses, settings, two services."""

import os
import socket
import time

import pytest

from kata.linux.namespaces import Inside
from support.engines import IMAGE

SERVE = "echo page >/tmp/index.html; exec httpd -f -p 80 -h /tmp"
REQUEST = b"GET /index.html HTTP/1.0\r\n\r\n"
ASK = """
get() { printf 'GET /index.html HTTP/1.0\\r\\n\\r\\n' | nc -w 20 $1 80 | tail -n 1; }
address() { nslookup $1 2>/dev/null | awk '/^Address/ { found = $NF } END { print found }'; }
"""
# busybox has no server for datagrams: Python, with the host's programs and libraries
PYTHON = [flag for path in ("/usr", "/lib", "/lib64") for flag in ("-v", f"{path}:{path}:ro")]
DATAGRAMS = """
import socket
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(("", 53))
while True:
    data, peer = server.recvfrom(100)
    server.sendto(b"reply to " + data, peer)
"""


def test_published_ports(engine):
    """TCP and UDP ports answer at the host's address; many requests at once; nothing afterwards."""
    flags = ("-p", "18080:80", "-p", "18053:53/udp", *PYTHON)
    name = engine.up(*flags, IMAGE, "sh", "-c", SERVE)
    engine.ok("exec", "-d", name, "/usr/bin/python3", "-IS", "-c", DATAGRAMS)
    for _ in range(5):
        assert engine.place.reach(18080, REQUEST).endswith(b"page\n")
    assert engine.place.reach(18053, b"this", kind=socket.SOCK_DGRAM) == b"reply to this"
    assert "18080" in engine.ok("port", name)
    engine.end(name)
    with pytest.raises(ConnectionRefusedError):
        engine.place.connect(18080)


def test_localhost_of_the_namespace(engine):
    """Who enters the container's network namespace on the host has its ports at localhost."""
    engine.up(IMAGE, "sh", "-c", SERVE.replace("-p 80", "-p 127.0.0.1:80"), name="own")
    path = f"/proc/{engine.inspect('own')['State']['Pid']}/ns/net"
    namespace = os.open(path, os.O_RDONLY)
    try:
        assert _asked_inside(namespace, time.monotonic() + 20).endswith(b"page\n")
    finally:
        os.close(namespace)
    engine.end("own")


def _asked_inside(namespace: int, latest: float) -> bytes:
    """What is answered at localhost of a namespace, as soon as somebody answers."""
    while True:
        with Inside(namespace):
            sock = socket.socket()
        with sock:
            sock.settimeout(20)
            try:
                sock.connect(("127.0.0.1", 80))
                sock.sendall(REQUEST)
                with sock.makefile("rb") as file:
                    return file.read()
            except ConnectionError:
                assert time.monotonic() < latest
        time.sleep(0.1)


def test_two_containers_on_a_network(engine):
    """On a network of their own two containers reach each other by address, name and alias."""
    engine.ok("network", "create", "inner")
    flags = ("--network", "inner", "--network-alias", "www")
    engine.up(*flags, IMAGE, "sh", "-c", SERVE, name="server")
    networks = engine.inspect("server")["NetworkSettings"]["Networks"]
    address = networks["inner"]["IPAddress"]
    script = f"""
        {ASK}
        get {address}; get $(address server); get $(address www)
        ip -4 -o addr show eth0 | wc -l; ip route | grep -c default; cat /sys/class/net/eth0/mtu
    """
    words = engine.ok("run", "--rm", "--network", "inner", IMAGE, "sh", "-c", script).split()
    assert words == ["page"] * 3 + ["1", "1", "1500"]
    engine.end("server")
    engine.ok("network", "rm", "inner")


def test_addresses_inside_are_those_the_engine_gave(engine):
    """Address, hardware address and name servers inside are those the engine tells of."""
    flags = ("--dns=192.0.2.53", "--add-host=friend:192.0.2.7", "--hostname=named")
    name = engine.up(*flags, "--mac-address=02:00:00:00:12:34", IMAGE, "sh", "-c", SERVE)
    settings = engine.inspect(name)["NetworkSettings"]
    inside = engine.sh(name, "ip -o addr show eth0; cat /sys/class/net/eth0/address")
    assert settings["IPAddress"] in inside
    assert "02:00:00:00:12:34" in inside
    words = engine.sh(name, "cat /etc/resolv.conf /etc/hosts; hostname; ip route")
    for word in ("nameserver 192.0.2.53", "friend", "named", f"default via {settings['Gateway']}"):
        assert word in words
    assert engine.place.reach(80, REQUEST, host=settings["IPAddress"]).endswith(b"page\n")


def test_no_network(engine):
    """With --network=none there is the loopback, and it works."""
    script = f"{ASK}\nls /sys/class/net; ({SERVE}) & sleep 1; get 127.0.0.1; kill $!"
    words = engine.ok("run", "--rm", "--network=none", IMAGE, "sh", "-c", script).split()
    assert words == ["lo", "page"]


def test_ipv6(engine):
    """A network with IPv6 addresses carries them."""
    engine.ok("network", "create", "--ipv6", "--subnet", "fd00:cafe::/64", "six")
    engine.up("--network", "six", IMAGE, "sh", "-c", SERVE, name="server")
    networks = engine.inspect("server")["NetworkSettings"]["Networks"]
    address = networks["six"]["GlobalIPv6Address"]
    assert engine.place.reach(80, REQUEST, host=address).endswith(b"page\n")
    engine.end("server")
    engine.ok("network", "rm", "six")


def test_network_of_another_container(engine):
    """--network=container: shares the address; each sees the other's server at loopback."""
    engine.up(IMAGE, "sh", "-c", SERVE, name="server")
    script = f"{ASK}\nget 127.0.0.1"
    flags = ("run", "--rm", "--network=container:server")
    assert engine.ok(*flags, IMAGE, "sh", "-c", script) == "page"


def test_names_beside_a_server_of_names(docker):
    """Docker answers names by connection too, and where a container has port 53 for itself."""
    docker.ok("network", "create", "named")
    flags = ("--network", "named", *PYTHON)
    name = docker.up(*flags, IMAGE, "/usr/bin/python3", "-IS", "-c", DATAGRAMS)
    address = docker.inspect(name)["NetworkSettings"]["Networks"]["named"]["IPAddress"]
    script = f"""
import socket
query = bytes.fromhex("123401000001000000000000") + b"\\3{name}\\0\\0\\1\\0\\1"
sock = socket.create_connection(("127.0.0.11", 53), 20)
sock.sendall(len(query).to_bytes(2, "big") + query)
print(".".join(map(str, sock.makefile("rb").read(sock.recv(2)[1])[-4:])))
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.settimeout(20)
for host in ("127.0.0.11", "127.0.0.1"):
    sock.sendto(query, (host, 53))
    answer, peer = sock.recvfrom(999)
    print(peer[0], peer[1], b"reply" in answer)
"""
    words = docker.ok("exec", name, "/usr/bin/python3", "-IS", "-c", script).splitlines()
    assert words == [address, "127.0.0.11 53 False", "127.0.0.1 53 True"]
    docker.end(name)
    docker.ok("network", "rm", "named")


def test_a_network_joined_later(docker):
    """A running container can be connected to another network, with its names; disconnected."""
    docker.ok("network", "create", "late")
    name = docker.up(IMAGE, "sleep", "600")
    docker.ok("network", "connect", "late", name)
    address = docker.inspect(name)["NetworkSettings"]["Networks"]["late"]["IPAddress"]
    docker.until(lambda: address in docker.sh(name, "ip -o addr"))
    docker.until(lambda: address in docker.sh(name, f"nslookup {name} || true"))
    docker.ok("network", "disconnect", "late", name)
    docker.until(lambda: address not in docker.sh(name, "ip -o addr"))
