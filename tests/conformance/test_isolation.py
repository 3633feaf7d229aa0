"""Namespaces, host names and kernel settings: what is a container's own, and what it shares."""

import os
import socket
import subprocess

import pytest

from conformance.bundle import config, namespaces
from conformance.container import eventually

POD = "io.kubernetes.cri.container-type"
SANDBOX = "io.kubernetes.cri.sandbox-id"
ALL = {"capabilities": {n: ["CAP_SYS_ADMIN", "CAP_NET_ADMIN", "CAP_SYS_CHROOT", "CAP_NET_RAW"]
                        for n in ("bounding", "effective", "permitted")}}  # fmt: skip
SYSCTL = {"net.ipv4.ip_forward": "1", "kernel.msgmax": "8000", "net.ipv4.ping_group_range": "0 7"}


@pytest.fixture(scope="module")
def own(suite):
    """A container with settings of its own, that stays."""
    spec = config("sleep", "100000", hostname="own-name", process=ALL, linux={"sysctl": SYSCTL})
    with suite.running(spec) as container:
        yield container


@pytest.fixture(scope="module")
def other(suite):
    """Another one beside it."""
    spec = config("sleep", "100000", hostname="other-name", process=ALL)
    with suite.running(spec) as container:
        yield container


def test_hostname(own):
    """The name is the config's."""
    assert own.sh("hostname") == "own-name\n"


def test_hostname_of_another_stays(own, other):
    """What one container does to its name is not seen in another, nor on the host."""
    before = os.uname().nodename
    other.sh("hostname changed")
    assert own.sh("hostname") == "own-name\n"
    assert os.uname().nodename == before


@pytest.mark.needs("domainname")
def test_domainname(suite):
    """The domain name is the config's."""
    assert suite.ask(config(domainname="example.org")).facts.domainname == "example.org"


def test_processes_are_its_own(own):
    """Few processes are seen, none of the host's; the first is the program."""
    seen = own.sh("ls -d /proc/[0-9]* | wc -l; tr '\\0' ' ' </proc/1/cmdline").split("\n")
    assert int(seen[0]) < 8
    assert seen[1] == "sleep 100000 "


def test_shared_memory_is_its_own(own, other):
    """A file in /dev/shm of one is not in that of another."""
    own.sh("echo x >/dev/shm/mine")
    assert other.exec("--", "cat", "/dev/shm/mine").code


def test_message_queues_are_its_own(own, other):
    """A POSIX message queue of one is not in the other's."""
    own.sh("touch /dev/mqueue/mine")
    assert other.sh("ls /dev/mqueue") == ""


def test_network_is_its_own(own):
    """A fresh network namespace has the loopback device alone, and it is up or can be."""
    assert own.sh("ls /sys/class/net; ip link | grep -c '^[0-9]*:'").split()[-1] == "1"


def test_loopback_works(own):
    """127.0.0.1 answers: the runtime brings the loopback device up in a network of its own."""
    script = (
        "ip link set lo up; (echo hello | nc -l -p 9099 &); "
        "for n in 1 2 3 4 5 6 7 8 9; do sleep 0.5 | nc 127.0.0.1 9099 && exit; done"
    )
    assert own.sh(script) == "hello\n"


def test_mounts_are_its_own(own, other):
    """A mount made in one is seen in no other, and not on the host."""
    own.exec("--cap", "CAP_SYS_ADMIN", "--", "mount", "-t", "tmpfs", "mine", "/tmp").ok()
    assert " /tmp " not in other.sh("cat /proc/self/mounts")
    with open("/proc/self/mounts", encoding="utf-8") as file:
        assert f"{own.rootfs}/tmp" not in file.read()


@pytest.mark.parametrize("name", sorted(SYSCTL))
def test_sysctl(own, name):
    """A kernel setting of a namespace is the config's."""
    path = name.replace(".", "/")
    assert own.sh(f"cat /proc/sys/{path}").split() == SYSCTL[name].split()


def test_sysctl_of_another_stays(other):
    """Another container has the kernel's own value."""
    assert other.sh("cat /proc/sys/kernel/msgmax") != "8000\n"


@pytest.mark.parametrize(
    "name",
    ["kernel.nosuchthing", "vm.swappiness", "kernel.printk", "kernel.hostname"],
)
def test_sysctl_of_the_host_is_refused(suite, name):
    """A setting of no namespace, of no kernel, or with a field of its own, is an error."""
    suite.refused(config("true", linux={"sysctl": {name: "1"}})).refused("sysctl", name)


def test_sysctl_needs_its_namespace(suite):
    """A setting of the ipc namespace without one of the container's own is an error."""
    spec = config("true", linux={"sysctl": {"kernel.msgmax": "8000"},
                                 "namespaces": namespaces(ipc=None)})  # fmt: skip
    suite.refused(spec).refused("sysctl", "ipc")


def test_hostname_needs_its_namespace(suite):
    """A name without a uts namespace is an error: it would be the host's."""
    suite.refused(config("true", linux={"namespaces": namespaces(uts=None)})).refused("uts")


def test_namespace_given_twice_is_refused(suite):
    """A kind of namespace may be named once."""
    twice = [*namespaces(), {"type": "ipc"}]
    suite.refused(config("true", linux={"namespaces": twice})).refused("namespace", "duplicate")


def test_unknown_namespace_is_refused(suite):
    """A kind that does not exist is an error."""
    unknown = [*namespaces(), {"type": "dreams"}]
    suite.refused(config("true", linux={"namespaces": unknown})).refused("namespace", "dreams")


def test_namespace_path_that_is_missing(suite):
    """A path that is not there is an error that names it."""
    spec = config("true", linux={"namespaces": namespaces(network="/nowhere/net")})
    suite.refused(spec).refused("/nowhere/net")


def test_namespace_path_of_another_kind(suite):
    """A path that is no namespace is an error."""
    spec = config("true", linux={"namespaces": namespaces(network="/etc/passwd")})
    suite.refused(spec).refused()


@pytest.fixture(scope="module")
def pod(suite):
    """Two containers of a pod, as containerd makes them: the second joins the first."""
    name = suite.name()
    first = config("sleep", "100000", hostname="pod-name", process=ALL,
                   annotations={POD: "sandbox", SANDBOX: name})  # fmt: skip
    with suite.running(first, name=name) as sandbox:
        joined = {n: f"/proc/{sandbox.pid}/ns/{n[:3]}" for n in ("pid", "ipc", "uts")}
        paths = namespaces(network=f"/proc/{sandbox.pid}/ns/net", **joined)
        spec = config("sleep", "100001", hostname=None, process=ALL, linux={"namespaces": paths},
                      annotations={POD: "container", SANDBOX: name})  # fmt: skip
        with suite.running(spec) as member:
            yield sandbox, member


def test_pod_shares_its_name(pod):
    """The uts namespace is shared: a change in one is seen in the other."""
    assert pod[1].sh("hostname") == "pod-name\n"
    pod[1].sh("hostname pod-changed")
    assert pod[0].sh("hostname") == "pod-changed\n"


def test_pod_shares_processes(pod):
    """The pid namespace is shared: the second sees the first's program as pid 1, and its own."""
    assert pod[1].sh("tr '\\0' ' ' </proc/1/cmdline") == "sleep 100000 "
    assert "sleep 100001" in pod[0].sh("cat /proc/[0-9]*/cmdline | tr '\\0' ' '")


def test_pod_shares_its_network(pod):
    """The network namespace is shared: the one answers the other at 127.0.0.1."""
    pod[0].sh("ip link set lo up")
    script = "for n in 1 2 3 4 5 6 7 8 9; do sleep 0.5 | nc 127.0.0.1 7777 && break; done"
    server = {"args": ["sh", "-c", "echo from-pod | nc -l -p 7777"], "cwd": "/",
              "env": ["PATH=/bin"], "user": {"uid": 0, "gid": 0}}  # fmt: skip
    with pod[0].spawn(server) as serving:
        assert "from-pod" in pod[1].sh(script)
        assert serving.wait() == 0


def test_pod_shares_message_queues(pod):
    """The ipc namespace is shared: what the one queues the other has."""
    one, two = pod
    assert one.sh("readlink /proc/self/ns/ipc") == two.sh("readlink /proc/self/ns/ipc")


def test_pod_keeps_roots_apart(pod):
    """Each has a root file system of its own."""
    pod[0].sh("echo x >/only-here")
    assert pod[1].exec("--", "cat", "/only-here").code


def test_end_of_a_member_is_its_own(pod, suite):
    """A member that ends leaves the others running."""
    sandbox = pod[0]
    paths = namespaces(network=f"/proc/{sandbox.pid}/ns/net")
    spec = config("sh", "-c", "exit 8", linux={"namespaces": paths},
                  annotations={POD: "container", SANDBOX: sandbox.id})  # fmt: skip
    assert suite.done(spec).code == 8
    assert sandbox.status == "running"


@pytest.fixture(scope="module")
def network(suite):
    """A network as an engine prepares it: a namespace with an end of a veth pair in it."""
    name, ours = f"conf-n{os.getpid()}", f"cv{os.getpid()}"

    def ip(*words: str) -> None:
        subprocess.run(["ip", *words], check=True)

    ip("netns", "add", name)
    try:
        ip("link", "add", ours, "type", "veth", "peer", "name", "eth0", "netns", name)
        ip("addr", "add", "10.231.7.1/24", "dev", ours)
        ip("link", "set", ours, "up")
        ip("-n", name, "link", "set", "eth0", "address", "02:00:00:00:07:02", "mtu", "1400")
        ip("-n", name, "addr", "add", "10.231.7.2/24", "dev", "eth0")
        ip("-n", name, "link", "set", "lo", "up")
        ip("-n", name, "link", "set", "eth0", "up")
        ip("-n", name, "route", "add", "default", "via", "10.231.7.1")
        paths = namespaces(network=f"/run/netns/{name}")
        spec = config("sh", "-c", "while :; do echo served | nc -l -p 8080; done",
                      process=ALL, linux={"namespaces": paths})  # fmt: skip
        with suite.running(spec) as container:
            yield container
    finally:
        ip("netns", "delete", name)


def test_prepared_address(network):
    """The address that the engine put on the device is there."""
    assert "10.231.7.2/24" in network.sh("ip addr show eth0")


def test_prepared_link(network):
    """The device keeps its name, hardware address and MTU, and is up."""
    shown = network.sh("ip link show eth0")
    assert "02:00:00:00:07:02" in shown
    assert "mtu 1400" in shown
    assert "UP" in shown


def test_prepared_route(network):
    """Routes are there."""
    assert "default via 10.231.7.1 dev eth0" in network.sh("ip route")


def test_host_reaches_the_container(network):
    """A connection from the host to the container's address is answered."""

    def ask() -> bytes:
        try:
            with socket.create_connection(("10.231.7.2", 8080), 2) as connection:
                return connection.recv(100)
        except OSError:  # between two of its servers
            return b""

    assert eventually(ask, "an answer", 20) == b"served\n"


def test_container_reaches_the_host(network):
    """And the other way round."""
    with socket.create_server(("10.231.7.1", 0)) as server:
        server.settimeout(20)
        script = f"echo from container | nc -w 5 10.231.7.1 {server.getsockname()[1]}"
        process = {"args": ["sh", "-c", script], "cwd": "/", "env": ["PATH=/bin"],
                   "user": {"uid": 0, "gid": 0}}  # fmt: skip
        with network.spawn(process) as client:
            connection, address = server.accept()
            with connection:
                assert connection.recv(100) == b"from container\n"
                assert address[0] == "10.231.7.2"
            client.wait()


@pytest.fixture(scope="module")
def grouped(suite):
    """A container with a cgroup namespace."""
    return suite.ask(config(linux={"namespaces": [*namespaces(), {"type": "cgroup"}]}))


def test_cgroup_namespace(grouped):
    """In a cgroup namespace the container's own group is the top."""
    paths = {line.split(":", 2)[2] for line in grouped.facts.cgroup.splitlines()}
    assert paths == {"/"}


@pytest.mark.needs("time namespaces")
def test_time_offsets(suite):
    """Offsets of a time namespace shift the clocks."""
    spec = config(linux={"timeOffsets": {"boottime": {"secs": 100000}},
                         "namespaces": [*namespaces(), {"type": "time"}]})  # fmt: skip
    facts = suite.ask(spec).facts
    assert ["boottime", "100000", "0"] in [row.split() for row in facts.timens_offsets.splitlines()]


def test_maps_without_their_namespace(suite):
    """Maps of ids say nothing without a user namespace: nobody is mapped."""
    ids = [{"containerID": 0, "hostID": 100000, "size": 65536}]
    facts = suite.ask(config(linux={"uidMappings": ids, "gidMappings": ids})).facts
    assert facts.uid_map.split() == ["0", "0", "4294967295"]


def test_offsets_without_their_namespace(suite):
    """Offsets of clocks say nothing without a time namespace."""
    spec = config("cat", "/proc/uptime", linux={"timeOffsets": {"boottime": {"secs": 1 << 30}}})
    assert float(suite.done(spec).out.split()[0]) < 1 << 30


def test_group_path_that_goes_up(suite):
    """``..`` in the path of the group leads up within the hierarchy."""
    name = suite.name()
    spec = config("sleep", "100000", linux={"cgroupsPath": f"/conformance/../conformance/{name}"})
    with suite.running(spec, name=name) as container:
        with open(f"/proc/{container.pid}/cgroup", encoding="ascii") as file:
            paths = {line.rstrip().split(":", 2)[2] for line in file}
        assert f"/conformance/{name}" in paths
