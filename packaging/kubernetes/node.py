#!/usr/bin/python3
"""The node installer: puts kata onto the node it runs on, and takes it off again.

    node.py serve          install, label the node, wait for the word to remove it all
    node.py uninstall      give that word to all nodes, and wait until they have done it

The one rule: the node's label tells what holds. ``true``: pods may come; ``updating``: none may,
until the last one of the version before has gone; ``removing``: none may, and everything is taken
away when the last one has gone; no label: nothing of ours is there.

It runs in a privileged container in the node's pid namespace and acts on the node by entering it,
so that what is done is what an administrator would do by hand.
"""

from __future__ import annotations

import json
import os
import ssl
import subprocess
import sys
import time
import urllib.request

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import IO

LABEL = "katacontainers.io/kata-runtime"
READY, UPDATING, REMOVING = "true", "updating", "removing"
PREFIX = "/opt/kata"
STAMP = "share/kata-node/stamp"  # names the content of the tree
CONFIGURATION = "/etc/kata-containers"
ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
UNITS = {"containerd": "containerd", "crio": "crio"}
PAUSE_S = 10.0
TIMEOUT_S = 30.0


class Cluster:
    """The part of the Kubernetes API that is needed: labels of nodes."""

    def __init__(self) -> None:
        host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]
        scheme = os.environ.get("KUBERNETES_SCHEME", "https")
        self._url = f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}/api/v1/nodes"
        self._account = os.environ.get("KUBERNETES_ACCOUNT", ACCOUNT)
        authority = f"{self._account}/ca.crt"
        self._tls = ssl.create_default_context(cafile=authority) if scheme == "https" else None

    def label(self, node: str) -> str:
        """The node's label; "" if it has none."""
        labels = self._ask("GET", f"/{node}")["metadata"].get("labels") or {}
        return str(labels.get(LABEL, ""))

    def set_label(self, node: str, value: str) -> None:
        """Set the node's label; "" removes it."""
        self._ask("PATCH", f"/{node}", {"metadata": {"labels": {LABEL: value or None}}})

    def labelled(self) -> dict[str, str]:
        """The nodes that have the label."""
        items = self._ask("GET", f"?labelSelector={LABEL}")["items"]
        return {item["metadata"]["name"]: item["metadata"]["labels"][LABEL] for item in items}

    def _ask(self, method: str, path: str, body: object = None) -> dict:
        with open(f"{self._account}/token", encoding="utf-8") as file:  # it is renewed now and then
            token = file.read().strip()
        request = urllib.request.Request(
            self._url + path, method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={
                "Authorization": f"Bearer {token}", "Accept": "application/json",
                "Content-Type": "application/merge-patch+json",
            },
        )  # fmt: skip
        with urllib.request.urlopen(request, timeout=TIMEOUT_S, context=self._tls) as answer:
            return json.load(answer)


class Node:
    """The node: commands run on it, as its administrator would."""

    def __init__(self, engine: str, enter: list[str], *, packages: bool) -> None:
        self.engine = engine
        self._enter = enter
        self._with_packages = packages

    def run(
        self, *argv: str, stdin: int | IO[bytes] = subprocess.DEVNULL, check: bool = True
    ) -> str:
        """Run a command on the node; its output. Standard error is the installer's."""
        done = subprocess.run(
            [*self._enter, *argv], stdin=stdin, stdout=subprocess.PIPE, text=True, check=check
        )
        return done.stdout

    def install(self) -> None:
        """Programs, what they need, and the engine's configuration; again is no harm."""
        if self._with_packages:
            self._packages()
        if not self.is_current():
            say(f"copying {PREFIX}")
            self._copy()
        self.check()
        said = self.run(f"{PREFIX}/bin/kata", "install", self.engine)
        print(said, end="", flush=True)
        if said.startswith("wrote"):
            self._restart()

    def check(self) -> None:
        """Raise ``SystemExit`` if no container can run on the node, with what would mend it."""
        said = self.run("sh", "-c", f"{PREFIX}/bin/kata check || echo FAILED")
        say(said.removesuffix("FAILED\n"))
        if said.endswith("FAILED\n"):
            sys.exit("this node cannot run containers of kata; the lines above say what it lacks")

    def is_current(self) -> bool:
        """Whether the node has this image's tree."""
        with open(f"{PREFIX}/{STAMP}", encoding="utf-8") as file:
            return self.run("sh", "-c", f"cat {PREFIX}/{STAMP} 2>/dev/null || true") == file.read()

    def sandboxes(self) -> int:
        """How many containers in virtual machines run on the node."""
        program = f"{PREFIX}/bin/kata"
        if not self.run("sh", "-c", f"test -x {program} && echo there || true"):
            return 0
        return len(self.run(program, "ps", "--quiet").split())

    def remove(self) -> None:
        """Take away what ``install`` put there; packages of the distribution stay."""
        undo = f"{PREFIX}/bin/kata install {self.engine} --undo"
        said = self.run("sh", "-c", f"test ! -x {PREFIX}/bin/kata || {undo}")
        print(said, end="", flush=True)
        if "removed" in said:
            self._restart()
        self.run("rm", "-rf", PREFIX)

    def _packages(self) -> None:
        """What the programs need of the distribution."""
        with open(f"{PREFIX}/share/kata-node/install-packages", "rb") as script:
            text = script.read()
        with open(f"{PREFIX}/share/kata-node/packages.txt", "rb") as names:
            listed = names.read()
        say("installing packages of the distribution that are missing")
        directory = self.run("mktemp", "-d").strip()
        for name, content in (("install-packages", text), ("packages.txt", listed)):
            self._write(f"{directory}/{name}", content)
        try:
            self.run("bash", f"{directory}/install-packages", "run")
        finally:
            self.run("rm", "-rf", directory)

    def _write(self, path: str, content: bytes) -> None:
        argv = [*self._enter, "sh", "-c", f"cat >{path}"]
        subprocess.run(argv, input=content, stdout=subprocess.DEVNULL, check=True)

    def _copy(self) -> None:
        """The tree beside the old one, then in its place: running programs keep their files."""
        new, old = f"{PREFIX}.new", f"{PREFIX}.old"
        self.run("rm", "-rf", new, old)
        self.run("mkdir", "-p", new)
        self._stream(PREFIX, new)
        self.run("sh", "-c", f"if [ -e {PREFIX} ]; then mv {PREFIX} {old}; fi; mv {new} {PREFIX}")
        self.run("rm", "-rf", old)
        if not self.run("sh", "-c", f"test -e {CONFIGURATION} && echo there || true"):
            self.run("mkdir", "-p", CONFIGURATION)
            self._stream(CONFIGURATION, CONFIGURATION)

    def _stream(self, source: str, target: str) -> None:
        with subprocess.Popen(["tar", "-C", source, "-c", "."], stdout=subprocess.PIPE) as sender:
            self.run("tar", "-C", target, "-x", stdin=sender.stdout)
        if sender.returncode:
            raise RuntimeError(f"tar ended with {sender.returncode}")

    def _restart(self) -> None:
        say(f"restarting {UNITS[self.engine]}")
        self.run("systemctl", "restart", UNITS[self.engine])


def serve(node: Node, cluster: Cluster, name: str) -> None:
    """Install, then look at the label until it says to remove everything; never returns.

    An installer that starts anew on a node that is being left goes on with that.
    """
    label, installed = _label(cluster, name), False
    while True:
        running = node.sandboxes()
        if label == REMOVING:
            if not running:
                node.remove()
                cluster.set_label(name, "")
                say("everything is removed")
                installed = True  # not again, unless this program starts again
        elif not installed and running and not node.is_current():
            say(f"waiting for {running} containers of the version before to end")
            cluster.set_label(name, UPDATING)
        elif not installed:
            node.install()
            cluster.set_label(name, READY)
            installed = True
            say("ready")
        time.sleep(PAUSE_S)
        label = _label(cluster, name)


def _label(cluster: Cluster, name: str) -> str:
    """The node's label; as if it were ready where the cluster does not answer."""
    try:
        return cluster.label(name)
    except OSError as error:  # urllib's errors are
        say(f"the cluster does not answer: {error}")
        return READY


def uninstall(cluster: Cluster) -> None:
    """Let every node remove it; ends when all have, or with the time its caller gives it."""
    while left := cluster.labelled():
        for name, label in left.items():
            if label != REMOVING:
                cluster.set_label(name, REMOVING)
        say(f"waiting for {', '.join(sorted(left))}: pods there may have to end first")
        time.sleep(PAUSE_S)
    say("no node has anything of it left")


def say(text: str) -> None:
    """A line for the log."""
    print(text, flush=True)


def main() -> None:
    """Do what the command line says; settings come from the chart, by the environment."""
    words = sys.argv[1:]
    if words == ["uninstall"]:
        uninstall(Cluster())
    elif words == ["serve"]:
        engine = os.environ["KATA_ENGINE"]
        if engine not in UNITS:
            sys.exit(f'KATA_ENGINE must be {" or ".join(UNITS)}, not "{engine}"')
        enter = ["nsenter", "--target=1", "--mount", "--net", "--"]
        packages = os.environ.get("KATA_PACKAGES") == "install"
        serve(Node(engine, enter, packages=packages), Cluster(), os.environ["NODE_NAME"])
    else:
        sys.exit("usage: node.py serve|uninstall")


if __name__ == "__main__":
    main()
