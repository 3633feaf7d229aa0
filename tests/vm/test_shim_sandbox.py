"""containerd's sandbox API: a machine without a container, then containers in it."""

import os
import subprocess

import pytest

from kata.errors import KataError, NotFound, WrongState
from kata.linux.namespaces import new_network, remove_mounted
from kata.wire import containerd_sandbox as api
from kata.wire.calls import Empty
from kata.wire.containerd_types import SANDBOX_SERVICE
from kata.wire.ttrpc import AnyMessage
from support.containerd import Containerd, Shim, until_end
from support.vm import DATA

TYPE, SANDBOX = "io.kubernetes.cri.container-type", "io.kubernetes.cri.sandbox-id"
POD = AnyMessage(
    type_url="type.googleapis.com/runtime.v1.PodSandboxConfig",
    value=api.PodConfig(hostname="podname").encode(),
)


@pytest.fixture
def netns(tmp_path):
    """A network namespace by its path."""
    path = f"{tmp_path}/netns"
    os.close(new_network(path))
    yield path
    remove_mounted(path)


@pytest.fixture
def containerd(prepared, tmp_path):  # the guest image
    """A containerd; whatever it made is gone afterwards."""
    made = Containerd(str(tmp_path), DATA)
    yield made
    made.close()
    if os.path.exists(made.state):
        assert not set(os.listdir(made.state)) - {"cache", "names", "uids"}


def ask(shim, method, **fields):
    """Call a method of the sandbox service."""
    kinds = api.METHODS[method]
    request = kinds[0](sandbox_id="pod", **fields)
    return shim.call(method, request, kinds[1], service=SANDBOX_SERVICE)


def test_a_sandbox_and_its_containers(containerd, netns):
    """Made, started, used by two containers that share names, stopped, waited for."""
    bundle = f"{containerd.directory}/bundles/pod"
    os.makedirs(bundle)
    containerd.made.append("pod")
    shim = containerd.start("pod")
    with pytest.raises(WrongState):
        ask(shim, "PingSandbox")
    with pytest.raises(KataError, match="network namespace"):
        ask(shim, "CreateSandbox", bundle_path=bundle, netns_path="/none", options=POD)
    ask(shim, "CreateSandbox", bundle_path=bundle, netns_path=netns, options=POD)
    pid = ask(shim, "StartSandbox").pid
    inside = os.stat(f"/proc/{pid}/ns/net").st_ino
    assert inside == os.stat(netns).st_ino
    assert ask(shim, "Platform").platform.os == "linux"
    assert ask(shim, "PingSandbox") == Empty()
    status = ask(shim, "SandboxStatus", verbose=True)
    assert (status.state, status.pid) == ("SANDBOX_READY", pid)
    assert "vmm_pid" in status.info["kata"]
    for name in ("one", "two"):
        container(containerd, shim, name, pid)
    ask(shim, "StopSandbox", timeout_secs=10)
    assert ask(shim, "WaitSandbox").exit_status == 0
    assert ask(shim, "SandboxStatus").state == "SANDBOX_NOTREADY"
    with pytest.raises(WrongState):
        ask(shim, "PingSandbox")
    with pytest.raises(NotFound):
        shim.call(
            "PingSandbox", api.SandboxRequest(sandbox_id="other"), Empty, service=SANDBOX_SERVICE
        )
    ask(shim, "ShutdownSandbox")


def container(containerd, shim: Shim, name: str, pid: int) -> None:
    """Run a container in the sandbox to its end."""
    path, reader = containerd.fifo(name)
    namespaces = [{"type": "mount"}, {"type": "pid"}, {"type": "cgroup"}]
    for kind, file in (("network", "net"), ("ipc", "ipc"), ("uts", "uts")):
        namespaces.append({"type": kind, "path": f"/proc/{pid}/ns/{file}"})
    containerd.bundle(
        name, "sh", "-c", "hostname; exit 3", hostname="",
        annotations={TYPE: "container", SANDBOX: "pod"}, linux={"namespaces": namespaces},
    )  # fmt: skip
    containerd.create(shim, name, stdout=path)
    shim.of("Start", name)
    assert shim.of("Wait", name).exit_status == 3
    assert until_end(reader) == b"podname\n"
    assert shim.of("Delete", name).exit_status == 3
    shim.of("Shutdown", name)  # says nothing about the sandbox
    assert ask(shim, "PingSandbox") == Empty()


def test_a_sandbox_that_is_never_made(containerd):
    """Shutdown ends the shim, and nothing was left to begin with."""
    os.makedirs(f"{containerd.directory}/bundles/pod")
    containerd.made.append("pod")
    shim = containerd.start("pod")
    ask(shim, "ShutdownSandbox")
    listed = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True)
    assert containerd.address not in listed.stdout
