"""The node installer on a node: another place, entered as a node's own namespaces would be."""

import http.server
import importlib.util
import json
import os
import subprocess
import tempfile
import threading
import time

import pytest

from support.host import need_tool
from support.place import Place
from support.source import CHECKOUT

NAME = "node-1"
MAIN = "/etc/containerd/config.toml"


class Api(http.server.ThreadingHTTPServer):
    """As much of the Kubernetes API as labels of nodes need; patches merge, null removes."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.labels: dict[str, dict[str, str]] = {NAME: {}, "node-2": {"other": "x"}}
        self.history: list[str] = []


class Answer(http.server.BaseHTTPRequestHandler):
    """One request."""

    def do_GET(self) -> None:
        """A node, or the nodes that have a label."""
        path, _, query = self.path.partition("?labelSelector=")
        if query:
            nodes = [n for n, labels in self.server.labels.items() if query in labels]
            self._answer({"items": [self._node(name) for name in nodes]})
        else:
            self._answer(self._node(path.rpartition("/")[2]))

    def do_PATCH(self) -> None:
        """New labels."""
        assert self.headers["Content-Type"] == "application/merge-patch+json"
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        name = self.path.rpartition("/")[2]
        labels = self.server.labels[name] | body["metadata"]["labels"]
        self.server.labels[name] = {k: v for k, v in labels.items() if v is not None}
        self.server.history += body["metadata"]["labels"].values()
        self._answer(self._node(name))

    def _node(self, name: str) -> dict:
        return {"metadata": {"name": name, "labels": self.server.labels[name] or None}}

    def _answer(self, value: object) -> None:
        good = self.headers["Authorization"] == "Bearer secret"
        self.send_response(200 if good else 401)
        self.end_headers()
        self.wfile.write(json.dumps(value).encode())

    def log_message(self, *_: object) -> None:
        """Quiet."""


@pytest.fixture
def api(directory, monkeypatch):
    """A cluster that lets us in."""
    server = Api()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    with open(f"{directory}/token", "w", encoding="utf-8") as file:
        file.write("secret\n")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(server.server_port))
    monkeypatch.setenv("KUBERNETES_SCHEME", "http")
    monkeypatch.setenv("KUBERNETES_ACCOUNT", directory)
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def installer(directory, monkeypatch):
    """The installer's program, with an image's tree below a directory of its own."""
    spec = importlib.util.spec_from_file_location(
        "node", f"{CHECKOUT}/packaging/kubernetes/node.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    prefix, root = f"{directory}/kata", f"{directory}/root"
    os.makedirs(f"{root}{directory}")
    os.symlink(f"{root}{prefix}", prefix)
    subprocess.run(
        ["/usr/bin/python3", f"{CHECKOUT}/packaging/install.py", "install", prefix, root],
        env=os.environ | {"EXTRAS": "no"}, check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    subprocess.run([f"{CHECKOUT}/packaging/kubernetes/stamp", prefix], check=True)
    monkeypatch.setattr(module, "PREFIX", prefix)
    monkeypatch.setattr(module, "CONFIGURATION", f"{root}/etc/kata-containers")
    monkeypatch.setattr(module, "PAUSE_S", 0.1)
    return module


@pytest.fixture
def node(directory, installer):
    """A node without anything of ours: the image's tree is not seen from it."""
    need_tool("containerd")
    place = Place(tempfile.mkdtemp(prefix="kn-", dir="/tmp"))
    try:
        mounts = f"for d in /var/lib/kata {directory}; do mount -t tmpfs tmpfs $d; done"
        place.run("sh", "-c", f"mkdir -p /var/lib/kata; {mounts}; rm -f {MAIN}")
        place.write(f"{place.directory}/bin/systemctl", '#!/bin/sh\necho "$@" >>/run/said\n', 0o755)
        yield Entered(installer, place)
    finally:
        place.close()


class Entered:
    """The installer's node, and what an administrator sees there."""

    def __init__(self, installer, place) -> None:
        self.place = place
        enter = [*place.argv(), "env", f"PATH={place.env['PATH']}"]
        self.node = installer.Node("containerd", enter, packages=False)
        self.running = 0
        self.node.check = lambda: None  # no test here has a guest image
        self.seen = self.node.sandboxes
        self.node.sandboxes = lambda: self.running

    def has(self, path: str) -> bool:
        """Whether a file is there."""
        return self.place.run("test", "-e", path, check=False).returncode == 0

    def said(self) -> list[str]:
        """What systemctl was told."""
        return self.place.run("cat", "/run/said", check=False).stdout.splitlines()


class Ended(Exception):
    """The installer's program is to end: it never does so itself."""


def serving(installer, node):
    """Start the installer; gives a function that ends it."""
    end = threading.Event()

    patch = pytest.MonkeyPatch()

    def sleep(seconds: float) -> None:
        if end.wait(seconds):
            raise Ended

    def serve() -> None:
        with pytest.raises(Ended):
            installer.serve(node.node, installer.Cluster(), NAME)

    patch.setattr(installer.time, "sleep", sleep)
    thread = threading.Thread(target=serve)
    thread.start()

    def stop() -> None:
        end.set()
        thread.join()
        patch.undo()

    return stop


def until(question) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + 60
    while not question():
        assert time.monotonic() < deadline, "it did not come to be"
        threading.Event().wait(0.05)


def test_a_node_gets_it_and_loses_it_again(api, installer, node):
    """Installed and labelled; told to remove it, it waits for the last pod, and leaves nothing."""
    prefix, label = installer.PREFIX, installer.LABEL
    stop = serving(installer, node)
    try:
        until(lambda: api.labels[NAME].get(label) == "true")
        assert node.place.run(f"{prefix}/bin/kata", "--version").stdout.startswith("kata version")
        assert node.seen() == 0
        assert f'"{prefix}/bin/containerd-shim-kata-v2"' in node.place.run("cat", MAIN).stdout
        assert node.said() == ["restart containerd"]
        assert node.has(f"{installer.CONFIGURATION}/configuration.toml")
        node.running = 1
        waiting = threading.Thread(target=installer.uninstall, args=(installer.Cluster(),))
        waiting.start()
        until(lambda: api.labels[NAME][label] == "removing")
        threading.Event().wait(0.5)
        assert node.has(f"{prefix}/bin/kata")
        node.running = 0
        waiting.join(30)
        assert not waiting.is_alive()
    finally:
        stop()
    assert api.labels == {NAME: {}, "node-2": {"other": "x"}}
    assert not node.has(prefix)
    assert not node.has(MAIN)
    assert not node.has("/var/lib/kata/engines.json")
    assert node.said() == ["restart containerd"] * 2


def test_an_update_waits_for_pods(api, installer, node):
    """Programs are not replaced under containers that run; the same ones are left as they are."""
    node.node.install()
    before = node.place.run("stat", "-c", "%i", installer.PREFIX).stdout
    node.node.install()
    assert node.place.run("stat", "-c", "%i", installer.PREFIX).stdout == before
    assert node.said() == ["restart containerd"]
    with open(f"{installer.PREFIX}/{installer.STAMP}", "a", encoding="utf-8") as file:
        file.write("newer\n")
    node.running = 2
    stop = serving(installer, node)
    try:
        until(lambda: api.labels[NAME].get(installer.LABEL) == "updating")
        assert node.place.run("stat", "-c", "%i", installer.PREFIX).stdout == before
        node.running = 0
        until(lambda: api.labels[NAME].get(installer.LABEL) == "true")
    finally:
        stop()
    assert node.place.run("stat", "-c", "%i", installer.PREFIX).stdout != before


def test_a_node_that_lacks_something_is_not_labelled(api, installer, node):
    """An installer that finds no container could run ends with what is missing, and says so."""
    del node.node.check
    with pytest.raises(SystemExit, match="the lines above"):
        installer.serve(node.node, installer.Cluster(), NAME)
    assert api.labels[NAME] == {}
    assert not node.has(MAIN)
