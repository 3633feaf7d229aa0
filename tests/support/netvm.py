"""What scripts of the network tests begin with: sandboxes in namespaces, copied from a template.

``PRELUDE`` is run in a fresh process, as ``/usr/bin/python3 -IS``, after CHECKOUT, DATA and ROOT
were set.
"""

PRELUDE = '''
import sys
sys.path.insert(0, CHECKOUT + "/src")
import glob, json, os, socket, subprocess, threading, time
from kata.errors import KataError
from kata.hypervisors.interface import Bindings, Options
from kata.hypervisors.qemu import driver, probe
from kata.linux.namespaces import Inside
from kata.machine.command_line import command_line, cpu_model
from kata.machine.description import Machine
from kata.network.namespace import Network, new_namespace
from kata.oci.defaults import container_spec, ContainerRequest, ProcessRequest
from kata.runtime import freeze, guest_image, networking
from kata.runtime.planning import storage_plan
from kata.runtime.template import Templates
from kata.wire import agent_api as api
from kata.wire.record import replace

IMAGE = guest_image.load(DATA + "/guest/default")
LAYER = max(glob.glob(DATA + "/layers/sha256/*.erofs"), key=os.path.getmtime)
QEMU, UID = probe.locate(""), 1999999990
MACHINE = Machine(
    kernel=IMAGE.kernel, initrd=IMAGE.initrd, image_digest=IMAGE.digest,
    command_line=command_line("tcg"), cpu_model=cpu_model("tcg"), memory_mib=256, block_slots=2,
    nic_slots=1,
)
TEMPLATES = Templates(ROOT, program=QEMU, uid=UID)


def sh(namespace, line, check=True):
    """Run words in a namespace; their output."""
    with Inside(namespace):
        done = subprocess.run(line.split(), stdout=-1, stderr=-2, stdin=-3)
    out = done.stdout.decode(errors="replace")
    assert not check or done.returncode == 0, f"{line}: {out}"
    return out


def inside(namespace, *words):
    """A socket in a namespace."""
    with Inside(namespace):
        sock = socket.socket(*words)
    sock.settimeout(30)
    return sock


def until(condition, seconds=30):
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.02)
    return value


class Pod:
    """A sandbox in a namespace of its own; ``outside`` is where links lead to."""

    def __init__(self, machine=MACHINE, uid=UID):
        self.machine, self.uid = machine, uid
        self.namespace = new_namespace()
        self.failures = []
        self.made = 0

    def link(self, outside, name="eth0", far="far0", mtu=1500, addresses=(), up=True):
        path = f"/proc/{os.getpid()}/fd/{outside}"
        ends = f"{name} mtu {mtu} type veth peer {far} mtu {mtu} netns {path}"
        sh(self.namespace, f"ip link add {ends}")
        for address in addresses:
            nodad = " nodad" if ":" in address else ""
            sh(self.namespace, f"ip address add {address} dev {name}{nodad}")
        sh(outside, f"ip link set {far} up")
        if up:
            sh(self.namespace, f"ip link set {name} up")

    def start(self):
        frozen = (TEMPLATES.find(self.machine) or TEMPLATES.create(self.machine, say=id)).open()
        self.network = Network(self.namespace, slots=self.machine.nic_slots).__enter__()
        layer = os.open(LAYER, os.O_RDONLY)
        bindings = Bindings(
            memory=frozen.memory, memory_source=frozen.source, state=frozen.state,
            disks=((0, layer, True),), nics=self.network.fds,
        )
        self.vm = driver.start(self.machine, bindings, Options(QEMU, self.uid, scratch=ROOT))
        self.vm.wait_ready(60)
        frozen.close()
        os.close(layer)
        self.client = freeze.configured(self.vm, 60)
        self.tell()
        return self

    def tell(self):
        networking.tell(self.network, self.vm, self.client).result(60)

    def follow(self):
        networking.follow(self.network, self.vm, self.client, self.failures.append)

    def create(self, script, network=api.SANDBOX_NETWORK):
        """Start a shell script in a container of the sandbox; its name."""
        self.made += 1
        name = f"c{self.made}"
        plan = storage_plan((LAYER,), (), 2)
        home = f"/run/kata/containers/{name}"
        storages = []
        for storage in plan.storages:
            text = storage.encode().replace(b"containers/first", f"containers/{name:>05}".encode())
            storages.append(api.Storage.decode(text))
        process = ProcessRequest(args=("sh", "-c", script))
        root = plan.root.replace("containers/first", f"containers/{name:>05}")
        spec = container_spec(ContainerRequest(process=process, hostname="pod", root=root))
        for entry in spec["linux"]["namespaces"]:
            if entry["type"] == "network":
                entry["path"] = network
        self.client.call("CreateContainer", api.CreateContainerRequest(
            container_id=name, spec=json.dumps(spec).encode(), storages=storages, stdout=True,
            stderr=True,
        ), 60)
        self.client.call("StartContainer", api.ContainerRequest(container_id=name), 60)
        return name

    def run(self, script, **more):
        """A script's whole output."""
        name = self.create(script, **more)
        out = b""
        for number in (1, 2):
            request = api.StreamRequest(container_id=name, stream=number)
            stream = self.client.stream("ReadOutput", request)
            while data := stream.read():
                out += data
                stream.consumed(len(data))
        self.client.call("Wait", api.ProcessRequest(container_id=name), 60)
        self.client.call("Delete", api.DeleteRequest(container_id=name), 60)
        return out.decode(errors="replace")

    def stop(self):
        """End it; the links that are left in the namespace."""
        self.vm.stop()
        self.network.close()
        left = json.loads(sh(self.namespace, "ip -j link"))
        qdiscs = json.loads(sh(self.namespace, "tc -j qdisc"))
        return sorted(l["ifname"] for l in left), [q for q in qdiscs if q["kind"] == "ingress"]


def ping(namespace, address, seconds=30):
    """Whether an address answers, in time."""
    program = "ping6" if ":" in address else "ping"
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        out = sh(namespace, f"busybox {program} -c 1 -W 2 {address}", check=False)
        if "1 packets received" in out:
            return True
    return False


def whole(namespace, address, size):
    """Whether a datagram of ``size`` bytes gets there in one piece: its port is closed."""
    sock = inside(namespace, socket.AF_INET, socket.SOCK_DGRAM)
    sock.setsockopt(socket.IPPROTO_IP, 10, 2)  # IP_MTU_DISCOVER: never fragment
    sock.connect((address, 9))
    try:
        sock.send(bytes(size - 28))
        sock.recv(1)
    except ConnectionRefusedError:
        return True
    except OSError as error:
        return error.strerror
    return False


def tell(*values):
    print(json.dumps(values), flush=True)


def quit():
    sys.stdout.flush()
    os._exit(0)  # threads of the client may still be there
'''
