"""What kubelet makes of the interface: probes, hooks, init containers, sidecars, restarts."""

from __future__ import annotations

import concurrent.futures
import tempfile

import pytest

from support.cri import Error, until

GET = b"GET /%s HTTP/1.0\r\n\r\n"
SERVE = "mkdir /www; echo well >/www/healthz; exec httpd -f -h /www -p 8080"


def volume(path: str, at: str = "/vol") -> dict:
    """The change to a container's configuration that mounts an emptyDir."""
    return {"mounts": [{"host_path": path, "container_path": at}]}


@pytest.fixture
def shared(pod):
    """An emptyDir."""
    return tempfile.mkdtemp(dir=pod.directory)


def test_probes(make_pod, containerd):
    """By a command, by HTTP and by TCP: from the node to the pod's address, good and bad."""
    pod = make_pod()
    pod.up("web", "sh", "-c", SERVE)

    def http(path: bytes) -> bytes:
        return containerd.place.reach(8080, GET % path, host=pod.ip).partition(b"\r\n")[0]

    until(lambda: b" 200 " in http(b"healthz"), name="the page")
    assert b" 404 " in http(b"none")
    with containerd.place.connect(8080, host=pod.ip):
        pass
    with pytest.raises(OSError), containerd.place.connect(8081, host=pod.ip):
        pass
    assert pod.exec("web", "cat", "/www/healthz").code == 0
    for _ in range(5):  # until it fails, again and again
        assert pod.exec("web", "test", "-e", "/tmp/ready").code == 1
    pod.sh("web", "touch /tmp/ready")
    assert pod.exec("web", "test", "-e", "/tmp/ready", timeout=1).code == 0
    with pytest.raises(Error):
        pod.exec("web", "sleep", "4711", timeout=1)
    assert pod.exec("web", "true").code == 0
    pod.end()


def test_hooks_of_the_life(pod, shared):
    """PostStart while it runs, PreStop before the signal: commands, in this order."""
    words = 'trap "echo TERM >>/vol/order; exit 0" TERM; echo main >>/vol/order; echo ready; '
    pod.up("hooked", "sh", "-c", f"{words} while :; do sleep 0.05; done", **volume(shared))
    pod.logged("hooked", "ready")
    pod.sh("hooked", "echo postStart >>/vol/order")
    pod.sh("hooked", "echo preStop >>/vol/order")
    pod.stop("hooked", grace=20)
    assert pod.ended("hooked").exit_code == 0
    with open(f"{shared}/order", encoding="utf-8") as file:
        assert file.read().split() == ["main", "postStart", "preStop", "TERM"]
    with pytest.raises(Error):
        pod.exec("hooked", "true")
    pod.remove("hooked")


def test_init_containers(make_pod):
    """One after another, each to its end, before the pod's own; one that fails is tried again."""
    pod = make_pod()
    work = tempfile.mkdtemp(dir=pod.directory)
    steps = ("echo one >/vol/steps", "test -e /vol/tried || { touch /vol/tried; exit 3; }",
             "echo three >>/vol/steps")  # fmt: skip
    codes = []
    for number, words in enumerate(steps):
        for attempt in range(2):
            name = f"init-{number}"
            pod.up(name, "sh", "-c", words, metadata={"attempt": attempt}, **volume(work))
            codes.append(pod.ended(name).exit_code)
            if codes[-1] == 0:
                break
            pod.remove(name)
    assert codes == [0, 3, 0, 0]
    pod.up("main", **volume(work))
    assert pod.sh("main", "cat /vol/steps").split() == ["one", "three"]
    assert [pod.status(f"init-{n}").reason for n in range(3)] == ["Completed"] * 3
    rows = pod.cri("ListContainerStats", filter={"pod_sandbox_id": pod.id}).stats
    assert {r.attributes.metadata.name for r in rows if r.cpu.usage_core_nano_seconds.value} == {
        "main"
    }
    pod.end()


def test_a_sidecar(make_pod):
    """It starts first, outlives its main container, which comes again, and is ended last."""
    pod = make_pod()
    work = tempfile.mkdtemp(dir=pod.directory)
    trap = 'trap "echo side-ends >>/vol/order; exit 0" TERM; echo ready; '
    pod.up("side", "sh", "-c", f"{trap} while :; do sleep 0.05; done", **volume(work))
    pod.logged("side", "ready")
    for attempt in range(2):
        words = "echo main >>/vol/order; exit 5"
        pod.up("main", "sh", "-c", words, metadata={"attempt": attempt}, **volume(work))
        assert pod.ended("main").exit_code == 5
        assert pod.state("side") == "running"
        pod.remove("main")
    pod.stop("side", grace=20)
    assert pod.ended("side").exit_code == 0
    with open(f"{work}/order", encoding="utf-8") as file:
        assert file.read().split() == ["main", "main", "side-ends"]
    pod.end()


def test_restarts_for_ever(make_pod):
    """A container that ends at once is made anew, the last attempt kept, as its policy has it."""
    pod = make_pod()
    before = ""
    for attempt in range(4):
        pod.up("crash", "sh", "-c", f"exit {attempt}", metadata={"attempt": attempt})
        old = pod.ended("crash")
        assert (old.exit_code, old.metadata.attempt) == (attempt, attempt)
        if before:
            pod.cri("RemoveContainer", container_id=before)
        before = pod.ids["crash"]
    assert pod.ready()
    listed = [c for c in pod.cri("ListContainers").containers if c.pod_sandbox_id == pod.id]
    assert [item.metadata.attempt for item in listed] == [3]
    pod.end()


def test_all_at_once(make_pod):
    """Containers of one pod are made, asked and stopped at the same time."""
    pod = make_pod()

    def life(number: int) -> tuple[str, int]:
        name = f"c{number}"
        pod.up(name)
        said = pod.sh(name, f"echo {number}")
        pod.stop(name)
        return said, pod.ended(name).exit_code

    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        found = list(pool.map(life, range(6)))
    assert found == [(str(n), 137) for n in range(6)]
    pod.end()
