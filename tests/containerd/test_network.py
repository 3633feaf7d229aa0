"""Networks of pods: CNI's bridge, ports of the host, nginx that serves, the host's own network."""

from __future__ import annotations

import concurrent.futures
import hashlib
import socket

import pytest

from containerd.differences import differs
from support import nginx, oci_image
from support import node as daemons
from support.cri import Error, until

GET = b"GET %s HTTP/1.0\r\n\r\n"


@pytest.fixture(scope="session")
def nginx_image(containerd) -> str:
    """Debian's nginx as an image of the daemon's."""
    directory = containerd.place.directory
    layer = oci_image.layer_of(nginx.make(f"{directory}/nginx-rootfs"))
    containerd.load(daemons.archive(directory, nginx.IMAGE, layer, nginx.CONFIG))
    return nginx.IMAGE


@pytest.fixture(scope="module")
def web(nginx_image, pods):
    """A pod with nginx and a client, published at port 18090 of the host."""
    pod = pods(port_mappings=[{"container_port": 80, "host_port": 18090}])
    pod.up("server", image={"image": nginx_image}, command=[])
    pod.up("client")
    until(lambda: pod.exec("client", "wget", "-qO-", "http://127.0.0.1/").code == 0)
    return pod


def test_nginx_and_client(web):
    """A client in the pod gets the page and the pod's name from the server, over loopback."""
    assert web.sh("client", "wget -qO- http://127.0.0.1/") == "a page of nginx"
    assert web.sh("client", "wget -qO- http://127.0.0.1/host") == web.config["hostname"]
    assert any("GET /host" in line.text for line in web.logged("server", "GET /host"))


def test_published_port(web, containerd):
    """The host's port leads to the server; much data comes whole, to many at once."""
    assert containerd.place.reach(18090, GET % b"/").endswith(b"\r\n\r\na page of nginx\n")
    wanted = hashlib.sha256(b"0123456789abcdef" * (1 << 16)).digest()
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: containerd.place.reach(18090, GET % b"/big"), range(8)))
    assert {hashlib.sha256(a.partition(b"\r\n\r\n")[2]).digest() for a in answers} == {wanted}


def test_pod_to_pod(web, make_pod):
    """Another pod reaches the server by its address, and the host's bridge."""
    other = make_pod()
    other.up("box")
    assert other.sh("box", f"wget -qO- http://{web.ip}/") == "a page of nginx"
    assert other.sh("box", "ping -c1 -W5 10.91.0.1 >/dev/null && echo well") == "well"
    assert other.sh("box", "ip -o link show eth0").split()[1].startswith("eth0")
    assert "default via 10.91.0.1" in other.sh("box", "ip route")


def test_web_server_ends_in_order(make_pod, nginx_image, containerd):
    """nginx is asked to stop, stops by itself, and its port is free for the next."""
    for _ in range(2):
        pod = make_pod(port_mappings=[{"container_port": 80, "host_port": 18091}])
        pod.up("server", image={"image": nginx_image}, command=[])
        assert containerd.place.reach(18091, GET % b"/").endswith(b"a page of nginx\n")
        pod.stop("server", grace=20)
        assert pod.ended("server").exit_code == 0
        pod.end()


def test_ports_of_two_kinds(make_pod, containerd):
    """TCP and UDP are published, each to a port of another number."""
    ports = [
        {"container_port": 8080, "host_port": 18092},
        {"container_port": 5353, "host_port": 15353, "protocol": "UDP"},
    ]
    pod = make_pod(port_mappings=ports)
    pod.up(
        "tcp", "sh", "-c", "mkdir /www; echo page >/www/index.html; exec httpd -f -h /www -p 8080"
    )
    pod.up("udp", "probe", "echo", "5353")
    assert containerd.place.reach(18092, GET % b"/").endswith(b"page\n")
    assert containerd.place.reach(15353, b"word", kind=socket.SOCK_DGRAM) == b"got word"


def test_network_of_the_host(make_pod, containerd, runtime):
    """A pod in the host's network sees it with runc; we refuse, and nothing is left of it."""
    options = {"network": "NODE", "pid": "CONTAINER"}
    change = {"hostname": "", "linux": {"security_context": {"namespace_options": options}}}
    if differs(runtime, "host-network"):
        with pytest.raises(Error) as error:
            make_pod(**change)
        assert "network" in error.value.details()
    else:
        pod = make_pod(**change)
        pod.up("box")
        assert "cni-test" in pod.sh("box", "ip -o link")
