"""Engines read what ``kata install`` wrote: real ones, in a place with an /etc of its own."""

import json
import tempfile
import tomllib

import pytest

from support.engines import docker_daemon
from support.host import need_tool
from support.place import Place
from support.source import CHECKOUT

RUNTIME = f"{CHECKOUT}/bin/kata-runtime"
SHIM = f"{CHECKOUT}/bin/containerd-shim-kata-v2"
CRI = "io.containerd.grpc.v1.cri"
MAIN = "/etc/containerd/config.toml"
IMPORTING = 'version = 2\nimports = ["/etc/containerd/conf.d/*.toml"]\n'


@pytest.fixture
def place():
    """A machine of our own as far as files go; what is remembered goes with it."""
    here = Place(tempfile.mkdtemp(prefix="ks-", dir="/tmp"))
    try:
        here.run("sh", "-c", "mkdir -p /var/lib/kata && mount -t tmpfs tmpfs /var/lib/kata")
        here.run("rm", "-f", MAIN, "/etc/docker/daemon.json")
        yield here
    finally:
        here.close()


def install(place, engine: str, *words: str):
    """``kata install`` in the place."""
    return place.run(f"{CHECKOUT}/bin/kata", "install", engine, *words, check=False)


def handlers(place) -> dict:
    """The handlers of containerd's CRI plugin, as containerd itself understands its files."""
    dump = place.run(need_tool("containerd"), "-c", MAIN, "config", "dump").stdout
    plugins = tomllib.loads(dump)["plugins"]
    section = plugins.get("io.containerd.cri.v1.runtime") or plugins[CRI]
    return section["containerd"]["runtimes"]


def test_podman_knows_the_runtime(place):
    """Podman finds the runtime by its name, and does not once the file is gone."""
    need_tool("podman")
    asked = ("podman", "--runtime", "kata", "--cgroup-manager", "cgroupfs", "info", "-f",
             "{{.Host.OCIRuntime.Path}}")  # fmt: skip
    assert place.run(*asked, check=False).stdout.strip() != RUNTIME
    assert install(place, "podman").returncode == 0
    assert place.run(*asked).stdout.strip() == RUNTIME
    assert install(place, "podman", "--undo").returncode == 0
    assert place.run(*asked, check=False).stdout.strip() != RUNTIME


@pytest.mark.parametrize("before", ["", IMPORTING])
def test_containerd_knows_the_handler(place, before):
    """containerd has our handler beside runc's, with and without a configuration before."""
    need_tool("containerd")
    if before:
        place.write(MAIN, before)
    done = install(place, "containerd")
    assert done.returncode == 0, done.stderr
    found = handlers(place)
    assert set(found) == {"runc", "kata"}
    assert SHIM in (found["kata"]["runtime_type"], found["kata"]["runtime_path"])
    assert found["kata"]["pod_annotations"] == ["io.katacontainers.*"]
    assert install(place, "containerd", "--undo").returncode == 0
    if before:
        assert set(handlers(place)) == {"runc"}


def test_containerd_by_hand(place):
    """Lines printed for somebody's file, added to it, do what they should, and all else stays."""
    need_tool("containerd")
    mine = f'version = 2\n[plugins."{CRI}"]\nsandbox_image = "mine/pause:1"\n'
    place.write(MAIN, mine)
    done = install(place, "containerd")
    assert done.returncode == 1
    assert place.run("cat", MAIN).stdout == mine
    place.write(MAIN, mine + done.stdout)
    assert set(handlers(place)) == {"runc", "kata"}
    dump = place.run("containerd", "-c", MAIN, "config", "dump").stdout
    assert 'sandbox_image = "mine/pause:1"' in dump
    assert install(place, "containerd").stdout.startswith("nothing to do")


def test_what_is_refused_would_have_done_harm(place):
    """The reason for the refusal holds: a second file replaces the section of the first."""
    if "containerd 1." not in place.run(need_tool("containerd"), "--version").stdout.replace(
        "github.com/containerd/containerd ", "containerd "
    ):
        pytest.skip("from containerd 2.0 on tables are merged")
    drop_in = f'version = 2\n[plugins."{CRI}".containerd.runtimes.kata]\nruntime_type = "x"\n'
    place.write(MAIN, IMPORTING + f'[plugins."{CRI}"]\nsandbox_image = "mine/pause:1"\n')
    place.write("/etc/containerd/conf.d/x.toml", drop_in)
    dump = place.run("containerd", "-c", MAIN, "config", "dump").stdout
    assert "mine/pause:1" not in dump
    assert set(handlers(place)) == {"kata"}


def test_docker_knows_the_runtime(place):
    """dockerd starts with the file and lists the runtime."""
    need_tool("dockerd")
    assert install(place, "docker").returncode == 0
    with docker_daemon(place, f"{place.directory}/dockerd.log") as docker:
        runtimes = json.loads(docker.ok("info", "--format", "{{json .Runtimes}}"))
    assert runtimes["kata"]["path"] == RUNTIME
