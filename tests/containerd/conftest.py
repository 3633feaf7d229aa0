"""Fixtures of containerd's tests: one place, one daemon, every runtime.

The one rule: a test that passes with runc is proven; the same test then judges our runtime. Where
ours must differ, ``differences`` says how and why, and the test asks it.
"""

from __future__ import annotations

import os
import pathlib
import shutil
import tempfile

import pytest

from containerd.differences import NOT_DONE
from containerd.setting import RUNTIMES, ready
from support import node as daemons
from support.cri import Client, Pod, until
from support.engines import IMAGE
from support.host import lacks, need_root, need_tool
from support.place import Place
from support.vm import DATA, RESULTS, prepared  # noqa: F401

HERE = pathlib.Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What ours does not do yet must fail: else its row is out of date."""
    for item in items:
        reason = NOT_DONE.get(getattr(item, "originalname", ""), "")
        ours = getattr(item, "callspec", None) and item.callspec.params.get("runtime") == "kata"
        if reason and ours and item.path.parent == HERE:
            item.add_marker(pytest.mark.xfail(reason=reason, strict=True))


@pytest.fixture(scope="session")
def containerd():
    """The daemon with the images."""
    need_root()
    for tool in ("containerd", "ctr", "runc", "skopeo", "gcc", "busybox"):
        need_tool(tool)
    if not os.path.exists("/usr/lib/cni/bridge"):
        lacks("the package containernetworking-plugins")
    place = Place(tempfile.mkdtemp(prefix="kt-", dir="/tmp"), daemons.GROUPS)
    os.makedirs(f"{place.directory}/pods")
    daemon = daemons.Containerd(place, DATA)
    try:
        daemon.start()
        for archive in daemons.archives(place.directory):
            daemon.load(archive)
        _make_what_is_made_once(daemon)
        yield daemon
    finally:
        daemon.end()
        place.close()


def _make_what_is_made_once(daemon: daemons.Containerd) -> None:
    """The bridge and the chains of CNI stay from the first pod on."""
    ports = [{"container_port": 1, "host_port": 1}]
    pod = Pod(daemon.cri, "runc", f"{daemon.place.directory}/pods", IMAGE, port_mappings=ports)
    pod.up("first")
    pod.end()
    ctr = daemons.Ctr(daemon.place, "runc")
    assert ctr.run("true").code == 0


@pytest.fixture(scope="session", autouse=True)
def _ready(containerd):
    """The daemon stands before the first test, which is not asked about it."""


@pytest.fixture(scope="module", params=RUNTIMES)
def runtime(request: pytest.FixtureRequest) -> str:
    """The runtime's name."""
    return ready(request.param, request)


@pytest.fixture
def kept(containerd, request: pytest.FixtureRequest, failed):
    """Before: what stands; after: that nothing else does. Keeps the daemon's log of a failure."""
    before = containerd.held()
    start = os.path.getsize(containerd.log)
    yield
    if failed():
        _keep_log(containerd.log, start, request.node.name)
    new: set[str] = set()
    allowed: tuple[str, ...] = getattr(request.node, "may_leave", ())

    def gone() -> bool:
        new.clear()
        found = containerd.held() - before
        new.update(line for line in found if not line.startswith(allowed))
        if containerd.process and any("snapshotter" in line for line in new):
            containerd.collect()
        return not new

    try:
        until(gone, 40)
    except AssertionError:
        if not failed():
            _keep_log(containerd.log, start, request.node.name)
            said = [line for line in _since(containerd.log, start) if "level=info" not in line]
            text = "\n  ".join([*sorted(new), "the daemon said:", *said[-20:]])
            pytest.fail(f"left in the place:\n  {text}", pytrace=False)


def _since(log: str, start: int) -> list[str]:
    with open(log, encoding="utf-8", errors="replace") as file:
        file.seek(start)
        return file.read().splitlines()


def _keep_log(log: str, start: int, name: str) -> None:
    """Keep what the daemon said from a place in its log on."""
    directory = f"{RESULTS}/{name.replace('/', '_')}"
    os.makedirs(directory, exist_ok=True)
    with open(log, "rb") as whole, open(f"{directory}/containerd.log", "wb") as copy:
        whole.seek(start)
        shutil.copyfileobj(whole, copy)


@pytest.fixture
def ctr(containerd, runtime: str, kept, request: pytest.FixtureRequest, failed):
    """containerd's own command with one runtime."""
    command = daemons.Ctr(containerd.place, runtime)
    yield command
    if failed():
        os.makedirs(f"{RESULTS}/{request.node.name}", exist_ok=True)
        with open(f"{RESULTS}/{request.node.name}/commands.txt", "w", encoding="utf-8") as file:
            file.writelines(command.said)
    command.clear()


@pytest.fixture
def cri(containerd) -> Client:
    """The container runtime interface."""
    return containerd.cri


@pytest.fixture(scope="module")
def pods(containerd, runtime: str):
    """A function that makes pods for the tests of a file; they end with the last of these."""
    yield from _pods(containerd, runtime)


@pytest.fixture
def make_pod(containerd, runtime: str, kept):
    """A function that makes pods for one test."""
    yield from _pods(containerd, runtime)


def _pods(containerd, runtime: str):
    directory = tempfile.mkdtemp(dir=f"{containerd.place.directory}/pods")

    uids = set()

    def make(**changes) -> Pod:
        pod = Pod(containerd.cri, runtime, directory, IMAGE, **changes)
        uids.add(pod.config["metadata"]["uid"])
        return pod

    yield make
    for sandbox in containerd.cri("ListPodSandbox").items:
        if sandbox.metadata.uid in uids:
            containerd.cri("StopPodSandbox", pod_sandbox_id=sandbox.id)
            containerd.cri("RemovePodSandbox", pod_sandbox_id=sandbox.id)
    shutil.rmtree(directory)


@pytest.fixture(scope="module")
def pod(pods) -> Pod:
    """A pod with a container "box" that sleeps, for the tests of a file that only add to it."""
    pod = pods()
    pod.up("box")  # and it is that, no longer what became it: processes are counted by their words
    until(lambda: "sleep" in pod.sh("box", "cat /proc/1/cmdline"))
    return pod
