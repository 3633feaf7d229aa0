"""Fixtures of the engines' tests: one place, one Podman, one dockerd, every runtime.

The one rule: a test that passes with runc is proven; the same test then judges our runtime.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile

import pytest

from support import busybox, engines
from support.host import lacks, need_root, need_tool
from support.place import Place
from support.pool import serving_in
from support.vm import DATA, RESULTS, prepared, rootfs  # noqa: F401


@pytest.fixture(scope="session")
def place():
    """Namespaces for both engines; one run of these tests at a time on a machine."""
    need_root()
    for tool in ("podman", "conmon", "dockerd", "containerd", "netavark", "runc", "skopeo"):
        if not os.path.exists(f"/usr/lib/podman/{tool}"):
            need_tool(tool)
    with open("/tmp/kata-test-engines.lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        here = Place(tempfile.mkdtemp(prefix="kt-", dir="/tmp"))
        engines.configure(here, DATA)
        yield here
        here.close()


@pytest.fixture(scope="session")
def image_archives(place: Place) -> list[str]:
    """The images as files."""
    root = busybox.make(f"{place.directory}/rootfs")
    return engines.archives(place.directory, root)


@pytest.fixture(scope="session")
def podman_engine(place: Place, image_archives: list[str]):
    """Podman with the images."""
    podman = engines.Podman(place, "runc")
    for archive in image_archives:
        podman.ok("load", "-i", archive)
    podman.ok("run", "--rm", "-p", "1:1", engines.IMAGE, "true")  # what Podman makes once
    return podman


@pytest.fixture(scope="session")
def docker_engine(place: Place, image_archives: list[str]):
    """Docker's daemon with the images."""
    with engines.docker_daemon(place, f"{place.directory}/dockerd.log") as docker:
        for archive in image_archives:
            docker.ok("load", "-i", archive)
        yield docker


@pytest.fixture(scope="session", autouse=True)
def _ready(podman_engine, docker_engine):
    """Both engines stand before the first test, which is not asked about them."""


@pytest.fixture(scope="session")
def pool_for_all(place: Place, prepared):  # noqa: F811 (asked for, not called)
    """A pool for every test, if KATA_TEST_POOL says how large: not what the suite is run with."""
    with serving_in(place, int(os.environ["KATA_TEST_POOL"])) as kept:
        yield kept


@pytest.fixture(params=engines.RUNTIMES)
def runtime(request: pytest.FixtureRequest) -> str:
    """The runtime's name; ours needs a guest image."""
    if request.param != "runc":
        if not os.path.exists(engines.OUR_RUNTIME):
            lacks(f'"{engines.OUR_RUNTIME}"')
        request.getfixturevalue("prepared")
        if os.environ.get("KATA_TEST_POOL"):
            request.getfixturevalue("pool_for_all")
    return request.param


# its store makes its home a private mount with the first container, and takes that away later
OF_PODMAN = {"mount /var/lib/containers/storage/overlay"}


def _used(whole: engines.Engine, runtime: str, request: pytest.FixtureRequest, failed):
    """An engine for one test: cleared after it, and asked what was left."""
    engine = whole.with_runtime(runtime)
    before = engine.place.held()
    yield engine
    if failed():
        _keep(engine, request.node.name)
    engine.clear()
    new = set()

    def gone() -> bool:
        new.clear()
        new.update(engine.place.held() - before - OF_PODMAN)
        return not new

    try:
        engine.until(gone, timeout=20)
    except AssertionError:
        if not failed():
            pytest.fail("left in the place:\n  " + "\n  ".join(sorted(new)), pytrace=False)


def _keep(engine: engines.Engine, name: str) -> None:
    """Keep what helps to understand a failure."""
    target = f"{RESULTS}/{name.replace('/', '_')}"
    shutil.rmtree(target, ignore_errors=True)
    os.makedirs(target)
    with open(f"{target}/commands.txt", "w", encoding="utf-8") as file:
        file.writelines(engine.said)
    log = f"{engine.place.directory}/dockerd.log"
    if engine.kind == "docker" and os.path.exists(log):
        shutil.copy(log, target)


@pytest.fixture
def podman(podman_engine, runtime: str, request: pytest.FixtureRequest, failed):
    """Podman with one runtime."""
    yield from _used(podman_engine, runtime, request, failed)


@pytest.fixture
def docker(docker_engine, runtime: str, request: pytest.FixtureRequest, failed):
    """Docker with one runtime."""
    yield from _used(docker_engine, runtime, request, failed)


@pytest.fixture(params=["podman", "docker"])
def engine(runtime: str, request: pytest.FixtureRequest, failed):
    """Either engine, for what both have."""
    whole = request.getfixturevalue(f"{request.param}_engine")
    yield from _used(whole, runtime, request, failed)


@pytest.fixture
def same():
    """A function: what a scenario gives, which must be what it gives with runc."""

    def check(engine: engines.Engine, scenario):
        found = scenario(engine)
        if engine.runtime != "runc":
            other = engine.with_runtime("runc")
            expected = scenario(other)
            other.clear()
            assert found == expected
        return found

    return check
