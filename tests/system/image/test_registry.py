"""Images from a registry, a real one on this machine's loopback."""

from __future__ import annotations

import os
import socket
import subprocess
import time
import urllib.error
import urllib.request

import pytest

from kata.errors import HostError, NotFound
from kata.image.pull import fetch
from kata.image.store import Store
from support.host import need_tool
from support.images import Archive, Layout, small_root

CONFIG = """version: 0.1
log: {{level: error, accesslog: {{disabled: true}}}}
storage: {{filesystem: {{rootdirectory: {directory}}}}}
http: {{addr: "127.0.0.1:{port}"}}
"""


@pytest.fixture
def registry(directory):
    """The address of a registry of our own."""
    program = need_tool("docker-registry")
    need_tool("skopeo")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with open(f"{directory}/registry.yml", "w") as file:
        file.write(CONFIG.format(directory=f"{directory}/registry", port=port))
    command = [program, "serve", f"{directory}/registry.yml"]
    with subprocess.Popen(command, stdout=-3, stderr=-3) as process:
        try:
            _wait_until_it_answers(f"http://127.0.0.1:{port}/v2/", process)
            yield f"127.0.0.1:{port}"
        finally:
            process.terminate()


def _wait_until_it_answers(url, process):
    for _ in range(200):
        assert process.poll() is None
        try:
            urllib.request.urlopen(url).close()
        except urllib.error.URLError:
            time.sleep(0.05)
        else:
            return
    pytest.fail("the registry does not answer")


def push(layout, target):
    """Copy an image into the registry."""
    subprocess.run(
        ["skopeo", "copy", "-q", "--dest-tls-verify=false", layout.reference, target], check=True
    )


def test_a_registry(registry, directory):
    """A pulled image has the registry's digest and name; by digest it is found too."""
    store, layout = Store(f"{directory}/data"), Layout(f"{directory}/layout")
    descriptor = layout.image([small_root(), Archive().file("b").bytes()], Cmd=["x"])
    push(layout, f"docker://{registry}/group/app:1")
    image = fetch(f"{registry}/group/app:1", store)
    assert image.name == f"{registry}/group/app:1"
    assert image.digests == (descriptor["digest"],)
    assert store.find(f"{registry}/group/app:1") == image
    again = fetch(f"docker://{registry}/group/app@{descriptor['digest']}", store)
    assert again.id == image.id
    assert store.find(f"{registry}/group/app@{descriptor['digest']}").id == image.id
    assert os.listdir(store.scratch) == []
    with pytest.raises(NotFound, match="does not have it"):
        fetch(f"{registry}/group/app:2", store)
    with pytest.raises(NotFound, match="does not have it"):
        fetch(f"{registry}/nothing", store)


def test_no_registry_there(directory):
    """A registry that does not answer is the network's fault, not the image's."""
    need_tool("skopeo")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(HostError, match="cannot reach"):
        fetch(f"127.0.0.1:{port}/x", Store(f"{directory}/data"))
