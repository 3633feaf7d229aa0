"""Guests with a network, from a template: reached and reaching, by wired and by plugged cards.

Each script runs in a fresh process; its namespaces are gone with it.
"""

import json
import shutil
import subprocess
import tempfile

import pytest

from support.host import need_tool
from support.netvm import PRELUDE
from support.source import CHECKOUT

PYTHON = "/usr/bin/python3"


@pytest.fixture(scope="module")
def root():
    """A directory for templates, shared by the tests of this file."""
    directory = tempfile.mkdtemp(prefix="kt-", dir="/tmp")
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
def run(prepared, root):
    """Run a script; gives what it tells."""
    for tool in ("ip", "tc", "busybox"):
        need_tool(tool)

    def finish(text):
        head = f"CHECKOUT, DATA, ROOT = {CHECKOUT!r}, {prepared!r}, {root!r}\n"
        process = subprocess.run(
            [PYTHON, "-ISc", head + PRELUDE + text + "\nquit()"],
            capture_output=True, timeout=280,
        )  # fmt: skip
        assert process.returncode == 0, process.stderr.decode()
        return [json.loads(line) for line in process.stdout.splitlines()]

    return finish


SIMPLE = """
outside = new_namespace()
pod = Pod()
pod.link(outside, mtu={mtu}, addresses=("10.1.0.2/24", "fd00::2/64"))
sh(outside, "ip address add 10.1.0.1/24 dev far0")
sh(outside, "ip address add fd00::1/64 dev far0 nodad")
sh(pod.namespace, "ip route add default via 10.1.0.1")
sh(pod.namespace, "ip neigh add 10.1.0.77 lladdr 0a:00:00:00:00:77 dev eth0 nud permanent")
pod.start()
"""


def test_a_guest_has_the_network_of_its_namespace(run):
    """Name, MAC, MTU, addresses, route and neighbour are the link's; both families answer."""
    script = """
tell(ping(outside, "10.1.0.2"), ping(outside, "fd00::2"))
link = json.loads(sh(pod.namespace, "ip -j link show eth0"))[0]
seen = pod.run("ip -o link; ip -o addr; ip route; ip neigh; ls /sys/class/net")
tell(link["address"], link["mtu"], seen)
tell(*pod.stop())
"""
    (four, six), (mac, mtu, seen), (left, filters) = run(SIMPLE.format(mtu=1400) + script)
    assert four
    assert six
    assert f"link/ether {mac}" in seen
    assert "eth0" in seen.splitlines()[-2:]
    assert f"mtu {mtu}" in seen
    assert mtu == 1400
    assert "inet 10.1.0.2/24" in seen
    assert "inet6 fd00::2/64" in seen
    assert "default via 10.1.0.1 dev eth0" in seen
    assert "10.1.0.77 dev eth0 lladdr 0a:00:00:00:00:77" in seen
    assert left == ["eth0", "lo"]
    assert filters == []


def test_the_monitor_has_a_tap_and_no_network(run):
    """QEMU holds one tap by descriptor; it is in an empty namespace of its own, without rights."""
    script = """
proc = f"/proc/{pod.vm.pid}"
held = [os.readlink(f"{proc}/fd/{n}") for n in os.listdir(f"{proc}/fd")]
status = dict(line.split(":\\t") for line in open(f"{proc}/status").read().splitlines())
links = [line.split(":")[0].strip() for line in open(f"{proc}/net/dev").readlines()[2:]]
tell(held.count("/dev/net/tun"), links, status["CapEff"], status["Seccomp"])
mine = [os.readlink(f"/proc/self/fd/{n}") for n in os.listdir("/proc/self/fd") if int(n) > 2
        and os.path.lexists(f"/proc/self/fd/{n}")]
tell(mine.count("/dev/net/tun"))
pod.stop()
"""
    (taps, links, rights, filtered), (ours,) = run(SIMPLE.format(mtu=1500) + script)
    assert (taps, links, int(rights, 16), filtered) == (1, ["lo"], 0, "2")
    assert ours == 0


def test_megabytes_go_both_ways(run):
    """TCP carries files whole, out of the guest and into it."""
    script = """
import hashlib
with open(LAYER, "rb") as file:
    data = file.read()
server = inside(outside, socket.AF_INET, socket.SOCK_STREAM)
server.bind(("10.1.0.1", 80))
server.listen()
def serve():
    peer, _ = server.accept()
    while not peer.recv(4096).endswith(b"\\r\\n\\r\\n"):
        pass
    peer.sendall(b"HTTP/1.0 200 OK\\r\\n\\r\\n" + data)
    peer.close()
threading.Thread(target=serve).start()
tell(hashlib.sha256(data).hexdigest(), pod.run("wget -q -O - http://10.1.0.1/ | sha256sum"))
name = pod.create("httpd -f -p 8080 -h /bin")
def fetch():
    sock = inside(outside, socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.connect(("10.1.0.2", 8080))
    except OSError:
        sock.close()
        return None
    sock.sendall(b"GET /busybox HTTP/1.0\\r\\n\\r\\n")
    found = b""
    while part := sock.recv(65536):
        found += part
    return found.partition(b"\\r\\n\\r\\n")[2]
tell(hashlib.sha256(until(fetch)).hexdigest(), pod.run("sha256sum /bin/busybox"))
# two containers of a sandbox are in one network
again = pod.run("wget -q -O - http://127.0.0.1:8080/busybox | sha256sum")
tell(hashlib.sha256(fetch()).hexdigest(), again)
pod.stop()
"""
    for here, there in run(SIMPLE.format(mtu=1500) + script):
        assert there.split()[0] == here


@pytest.mark.parametrize("mtu", [1400, 9000])
def test_frames_may_be_as_large_as_the_link_s(run, mtu):
    """A datagram of the link's size goes in one piece; a larger one is refused at its source."""
    script = f"""
ping(outside, "10.1.0.2")
tell(whole(outside, "10.1.0.2", {mtu}), whole(outside, "10.1.0.2", {mtu + 1}))
pod.stop()
"""
    [(fits, larger)] = run(SIMPLE.format(mtu=mtu) + script)
    assert fits is True
    assert larger == "Message too long"


def test_a_link_that_comes_later(run):
    """A guest that started without a link has it as soon as the engine moves it in."""
    script = """
outside = new_namespace()
pod = Pod().start()
pod.follow()
tell(pod.run("ip -o addr show up | grep -c inet"), pod.network.guest_request().interfaces)
pod.link(outside, name="veth1", up=False)
sh(outside, "ip address add 10.1.0.1/24 dev far0")
sh(pod.namespace, "ip link set veth1 name eth0")
sh(pod.namespace, "ip address add 10.1.0.2/24 dev eth0")
sh(pod.namespace, "ip link set eth0 up")
sh(pod.namespace, "ip route add default via 10.1.0.1")
tell(ping(outside, "10.1.0.2"))
tell(until(lambda: "default via 10.1.0.1" in pod.run("ip route")))
sh(pod.namespace, "ip address add 10.1.0.3/24 dev eth0")
tell(ping(outside, "10.1.0.3"))
sh(pod.namespace, "ip link delete eth0")
tell(until(lambda: "10.1.0" not in pod.run("ip addr")))
tell(*map(str, pod.failures))
tell(*pod.stop())
"""
    first, *rest, failures, (left, filters) = run(script)
    assert first[1] == []
    assert rest == [[True]] * 4
    assert failures == []
    assert left == ["lo"]
    assert filters == []


def test_more_links_than_wired_cards_are_plugged(run):
    """A second link at the start, and a third later, are plugged, named and reached."""
    script = """
outside = new_namespace()
pod = Pod()
pod.link(outside, "eth0", "far0", addresses=("10.1.0.2/24",))
pod.link(outside, "net1", "far1", addresses=("10.2.0.2/24",))
for number in (0, 1):
    sh(outside, f"ip address add 10.{number + 1}.0.1/24 dev far{number}")
pod.start()
tell(ping(outside, "10.1.0.2"), ping(outside, "10.2.0.2"))
pod.follow()
pod.link(outside, "net2", "far2", addresses=("10.3.0.2/24",))
sh(outside, "ip address add 10.3.0.1/24 dev far2")
tell(ping(outside, "10.3.0.2"), pod.run("ls /sys/class/net").split())
tell(*map(str, pod.failures))
tell(*pod.stop())
"""
    first, (third, names), failures, (left, filters) = run(script)
    assert first == [True, True]
    assert third
    assert names == ["eth0", "lo", "net1", "net2"]
    assert failures == []
    assert left == ["eth0", "lo", "net1", "net2"]
    assert filters == []


def test_two_guests_reach_each_other(run):
    """Guests on one bridge, copies of one template, have addresses and MACs of their own."""
    script = """
outside = new_namespace()
sh(outside, "ip link add br0 type bridge")
sh(outside, "ip link set br0 up")
pods = []
for number in (1, 2):
    pod = Pod(uid=UID + number)
    pod.link(outside, far=f"far{number}", addresses=(f"10.1.0.{number}/24",))
    sh(outside, f"ip link set far{number} master br0")
    pods.append(pod)
one, two = pods
TEMPLATES.find(MACHINE) or TEMPLATES.create(MACHINE, say=id)
ready, go_on = os.pipe(), os.pipe()
child = os.fork()  # a process starts one monitor: it must be single threaded then
if child == 0:
    two.start()
    os.write(ready[1], b"x")
    os.read(go_on[0], 1)
    two.stop()
    os._exit(0)
os.read(ready[0], 1)
one.start()
out = one.run("ping -c 2 -W 20 10.1.0.2; ip neigh show 10.1.0.2; cat /proc/sys/kernel/random/uuid")
macs = [json.loads(sh(p.namespace, "ip -j link show eth0"))[0]["address"] for p in pods]
os.write(go_on[1], b"x")
os.waitpid(child, 0)
tell(out, *macs)
one.stop()
"""
    [(out, own, other)] = run(script)
    assert " 0% packet loss" in out
    assert f"lladdr {other}" in out
    assert own != other


def test_where_cards_cannot_be_plugged(run):
    """One clear error on a machine that takes no cards while it runs."""
    script = """
outside = new_namespace()
pod = Pod(replace(MACHINE, machine_type="q35"))
pod.link(outside, "eth0", "far0")
pod.link(outside, "net1", "far1")
try:
    pod.start()
except KataError as error:
    tell(type(error).__name__, str(error))
tell(*pod.stop())
"""
    (kind, text), (left, filters) = run(script)
    assert kind == "Unsupported"
    assert "network hotplug" in text
    assert left == ["eth0", "lo", "net1"]
    assert filters == []


def test_a_container_may_have_a_network_of_its_own(run):
    """One that asks for a new network namespace sees loopback alone; the card is not touched."""
    script = """
tell(pod.run("ls /sys/class/net", network="").split(), pod.run("ls /sys/class/net").split())
pod.stop()
"""
    assert run(SIMPLE.format(mtu=1500) + script) == [[["lo"], ["eth0", "lo"]]]


@pytest.mark.parametrize("settled", [False, True])
def test_a_container_made_in_a_template_has_the_sandbox_s_network(run, settled):
    """A copy of a template in which a container is made, up to its program or not, has it."""
    script = f"SETTLED = {settled}" + """
from kata.runtime.template import Preparation
base = TEMPLATES.find(MACHINE) or TEMPLATES.create(MACHINE, say=id)
plan = storage_plan((LAYER,), (), 2)
words = ("sh", "-c", "cat /sys/class/net/eth0/address; ip -4 -o addr")
process = ProcessRequest(args=words)
spec = container_spec(ContainerRequest(process=process, hostname="pod", root=plan.root))
for entry in spec["linux"]["namespaces"]:
    if entry["type"] == "network":
        entry["path"] = api.SANDBOX_NETWORK
about = {"root": spec["root"], "mounts": spec["mounts"],
         "linux": {k: v for k, v in spec["linux"].items() if k != "resources"}}
if SETTLED:
    about["process"] = spec["process"]
root = api.PrepareRequest(storages=list(plan.storages), spec=json.dumps(about).encode())
machine = replace(MACHINE, prepared=f"test-{SETTLED}")
TEMPLATES.find(machine) or TEMPLATES.create(
    machine, say=id, of=Preparation(base, (LAYER,), root))
outside = new_namespace()
pod = Pod(machine)
pod.link(outside, addresses=("10.1.0.2/24",))
pod.start()
wanted = api.CreateContainerRequest(container_id="c1", stdout=True, stderr=True)
if SETTLED:
    wanted.program = api.Program(
        args=b"".join(w.encode() + b"\\0" for w in words), env=b"PATH=/bin\\0")
else:
    wanted.spec, wanted.storages = json.dumps(spec).encode(), list(plan.storages)
pod.client.call("CreateContainer", wanted, 60)
pod.client.call("StartContainer", api.ContainerRequest(container_id="c1"), 60)
stream = pod.client.stream("ReadOutput", api.StreamRequest(container_id="c1", stream=1))
out = b""
while data := stream.read():
    out += data
mac = json.loads(sh(pod.namespace, "ip -j link show eth0"))[0]["address"]
tell(out.decode(), mac)
pod.stop()
"""
    [(out, mac)] = run(script)
    assert out.splitlines()[0] == mac
    assert "inet 10.1.0.2/24" in out
