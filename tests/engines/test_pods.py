"""Podman's pods: containers that share a network, and their processes where they are told to."""

import pytest

from support.engines import IMAGE

REQUEST = b"GET /index.html HTTP/1.0\r\n\r\n"
SERVE = "echo page >/tmp/index.html; exec httpd -f -p 80 -h /tmp"
GET = "printf 'GET /index.html HTTP/1.0\\r\\n\\r\\n' | nc -w 20 127.0.0.1 80 | tail -n 1"

TWO = """
apiVersion: v1
kind: Pod
metadata:
  name: two
  labels: {app: two}
spec:
  restartPolicy: Never
  containers:
  - name: server
    image: IMAGE:latest
    command: [sh, -c, "SERVE"]
    ports: [{containerPort: 80, hostPort: 18081}]
    volumeMounts: [{name: shared, mountPath: /shared}]
    resources: {limits: {memory: 256Mi}}
  - name: client
    image: IMAGE:latest
    command: [sleep, "600"]
    env: [{name: WORD, value: given}]
    workingDir: /var
    volumeMounts: [{name: shared, mountPath: /shared}]
    securityContext: {capabilities: {drop: [CHOWN]}}
  volumes:
  - name: shared
    emptyDir: {}
"""


def test_pod(podman):
    """A pod's containers share network and hostname; stop, start, pause and rm take all of them."""
    podman.ok("pod", "create", "--name", "pod", "--hostname", "poddy", "-p", "18080:80")
    podman.up("--pod", "pod", IMAGE, "sh", "-c", SERVE, name="server")
    podman.up("--pod", "pod", IMAGE, "sleep", "600", name="client")
    assert podman.sh("client", f"{GET}; hostname").split() == ["page", "poddy"]
    assert podman.place.reach(18080, REQUEST).endswith(b"page\n")
    assert podman.ok("pod", "ps", "--format", "{{.Status}} {{.NumberOfContainers}}") == "Running 3"
    podman.ok("pod", "pause", "pod")
    assert podman.state("client")["Status"] == "paused"
    podman.ok("pod", "unpause", "pod")
    podman.ok("pod", "stop", "-t", "1", "pod")
    assert podman.state("client")["Status"] == "exited"
    podman.ok("pod", "start", "pod")
    podman.until(lambda: podman.sh("client", GET) == "page")
    assert "server" in podman.ok("pod", "inspect", "pod")
    podman.ok("pod", "kill", "pod")
    podman.until_status("client", "exited")
    podman.ok("pod", "rm", "-f", "-t0", "pod")
    assert podman.ok("ps", "-aq") == ""


def test_processes_of_another_container(podman):
    """--pid=container: within a pod shows the other's processes, and signals reach them."""
    podman.ok("pod", "create", "--name", "pod")
    podman.up("--pod", "pod", IMAGE, "sh", "-c", "sleep 611; echo woken; sleep 600", name="first")
    flags = ("--pod", "pod", "--pid", "container:first")
    podman.up(*flags, IMAGE, "sleep", "612", name="second")
    assert "sleep 611" in podman.sh("second", "ps")
    assert "sleep 612" in podman.sh("first", "ps")
    podman.sh("second", "kill $(ps | awk '/sleep 611$/ { print $1 }') 2>/dev/null; true")
    podman.until_logged("first", "woken")


def test_memory_of_another_container(engine):
    """--ipc=container: shared memory is one for both; the other's end does not take it away."""
    engine.up("--network=none", "--ipc=shareable", IMAGE, "sleep", "600", name="first")
    script = "cat /dev/shm/first; echo two >/dev/shm/second; ipcs -m | wc -l"
    engine.sh("first", "echo one >/dev/shm/first")
    flags = ("--network=none", "--ipc=container:first")
    assert engine.ok("run", "--rm", *flags, IMAGE, "sh", "-c", script).split()[0] == "one"
    assert engine.sh("first", "cat /dev/shm/second") == "two"


@pytest.mark.parametrize("shared", ["ipc", "pid"])
def test_pod_that_shares(podman, shared):
    """What a pod is told to share is one for its containers."""
    podman.ok("pod", "create", "--name", "pod", "--share", f"{shared},net,uts")
    words = "echo here >/dev/shm/note; sleep 613"
    podman.up("--pod", "pod", IMAGE, "sh", "-c", words, name="first")
    podman.until_status("first", "running")
    podman.up("--pod", "pod", IMAGE, "sleep", "614", name="second")
    words = podman.sh("second", "cat /dev/shm/note; ps")
    assert ("here" in words, "sleep 613" in words) == (shared == "ipc", shared == "pid")


def test_kube(podman, directory):
    """play kube starts a pod of two as written; generate kube writes it; down ends it."""
    with open(f"{directory}/two.yaml", "w", encoding="utf-8") as file:
        file.write(TWO.replace("IMAGE", IMAGE).replace("SERVE", SERVE))
    podman.ok("play", "kube", "--network=podman", f"{directory}/two.yaml")
    assert podman.place.reach(18081, REQUEST).endswith(b"page\n")
    words = f"{GET}; pwd; echo $WORD; hostname; echo kept >/shared/file"
    assert podman.sh("two-client", words).split() == ["page", "/var", "given", "two"]
    assert podman.sh("two-server", "cat /shared/file") == "kept"
    caps = podman.sh("two-client", "grep CapBnd /proc/self/status").split()[1]
    assert not int(caps, 16) & 1  # CAP_CHOWN
    written = podman.ok("generate", "kube", "two")
    assert all(word in written for word in ("kind: Pod", "two-client", "hostPort: 18081"))
    podman.ok("play", "kube", "--down", f"{directory}/two.yaml")
    assert podman.ok("ps", "-aq") == ""


def test_members_have_the_memory_of_their_limits(podman):
    """What each container of a pod may use is there, however many join, and all at a time."""
    podman.ok("pod", "create", "--name", "pod")
    big = ("--pod", "pod", "--memory=700m", "--memory-swap=700m", "--tmpfs", "/big:size=650m")
    for name in ("one", "two"):
        podman.up(*big, IMAGE, "sleep", "600", name=name)
    for name in ("one", "two"):
        podman.sh(name, "dd if=/dev/zero of=/big/file bs=1M count=600")
        assert podman.sh(name, "stat -c %s /big/file") == str(600 << 20)
    podman.ok("pod", "rm", "-f", "-t0", "pod")


def test_generated_description_runs(podman, directory):
    """What generate kube writes of a container is a description that play kube runs."""
    podman.up("-e", "WORD=given", IMAGE, "sh", "-c", "echo $WORD; sleep 600", name="plain")
    podman.ok("generate", "kube", "-f", f"{directory}/plain.yaml", "plain")
    podman.end("plain")
    podman.ok("play", "kube", f"{directory}/plain.yaml")
    podman.until_logged("plain-pod-plain", "given")
    podman.ok("play", "kube", "--down", f"{directory}/plain.yaml")
