"""What holds for every test: nothing left behind, a time limit, markers by folder.

The folders say what a test needs: ``unit`` nothing, ``process`` processes and sockets, ``system``
root, ``vm`` virtual machines, ``engines`` Podman and Docker, ``containerd`` containerd,
``conformance`` a runtime, ``style`` the tools that read the source.
"""

from __future__ import annotations

import os
import shutil
import signal
import tempfile

import pytest
from hypothesis import HealthCheck, settings

from kata.linux.syscalls import PR_SET_CHILD_SUBREAPER, prctl
from support import host, leaks

LIMITS = {  # seconds
    "unit": 60, "style": 300, "process": 60, "system": 120, "vm": 300, "engines": 300,
    "containerd": 300, "conformance": 120,
}  # fmt: skip
MARKERS = (
    "unit: pure, needs nothing",
    "style: reads the source with tools",
    "process: needs processes and sockets",
    "system: needs root",
    "vm: needs virtual machines",
    "engines: needs Podman and Docker",
    "containerd: needs containerd",
    "conformance: needs a container runtime",
    "soak: long; only with --soak",
)

settings.register_profile(
    "here", deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=60
)
settings.register_profile("deep", parent=settings.get_profile("here"), max_examples=5000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "here"))


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add --soak and --alone."""
    parser.addoption("--soak", action="store_true", help="run the long tests too")
    parser.addoption(
        "--alone",
        action="store_true",
        help="nothing else runs on this machine: compare all of it before and after the run",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Register the markers; orphans of our processes come to us, to be counted."""
    for marker in MARKERS:
        config.addinivalue_line("markers", marker)
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    for number in (signal.SIGHUP, signal.SIGQUIT, signal.SIGINT):
        if signal.getsignal(number) == signal.SIG_IGN:  # by nohup, or as a job in the background
            interrupt = number == signal.SIGINT
            signal.signal(number, signal.default_int_handler if interrupt else signal.SIG_DFL)


def _level(item: pytest.Item) -> str:
    parts = item.path.relative_to(os.path.dirname(__file__)).parts
    return parts[0] if parts[0] in LIMITS else "unit"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark by folder, limit the time, leave out the long ones unless asked for."""
    long = pytest.mark.skip(reason="only with --soak")
    for item in items:
        level = _level(item)
        item.add_marker(level)
        if not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(LIMITS[level]))
        if item.get_closest_marker("soak") and not config.getoption("--soak"):
            item.add_marker(long)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Tests of the system, of virtual machines and of engines need root."""
    if _level(item) in ("system", "vm", "engines", "containerd"):
        host.need_root()


def _is_worker(config: pytest.Config) -> bool:
    return hasattr(config, "workerinput")


def pytest_sessionstart(session: pytest.Session) -> None:
    """Look at the machine before the run, if it is ours alone."""
    if session.config.getoption("--alone") and not _is_worker(session.config):
        session.config.stash[_HOST] = leaks.host()


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Look at the machine after the run: what is new fails it."""
    before = session.config.stash.get(_HOST, None)
    if before is None:
        return
    new = sorted(leaks.host() - before)
    if new:
        print("\nleft behind on this machine:", *new, sep="\n  ")
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


_HOST: pytest.StashKey[set[str]] = pytest.StashKey()
_REPORT: pytest.StashKey[dict[str, pytest.TestReport]] = pytest.StashKey()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item):
    """Let fixtures know how their test ended (``failed``)."""
    report = yield
    item.stash.setdefault(_REPORT, {})[report.when] = report
    return report


@pytest.fixture
def failed(request: pytest.FixtureRequest):
    """A function that says, during teardown, whether the test failed."""
    return lambda: any(r.failed for r in request.node.stash.get(_REPORT, {}).values())


@pytest.fixture(scope="session")
def worker_directory():
    """A directory of this test process alone, short enough for socket paths; removed at the end."""
    path = tempfile.mkdtemp(prefix="kt-", dir="/tmp")
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="session")
def _own_directories(tmp_path_factory: pytest.TempPathFactory, worker_directory: str) -> list[str]:
    return [str(tmp_path_factory.getbasetemp()), worker_directory]


@pytest.fixture
def directory(worker_directory: str):
    """A new directory with a short path, for sockets; the test need not empty it."""
    path = tempfile.mkdtemp(dir=worker_directory)
    yield path
    shutil.rmtree(path)


@pytest.fixture(autouse=True)
def nothing_left_behind(request: pytest.FixtureRequest, _own_directories: list[str]):
    """Every test leaves the processes, descriptors, threads and mounts it found."""
    pure = _level(request.node) in ("unit", "style")
    before = leaks.mine(_own_directories, pure=pure)
    yield
    left = leaks.left(before, _own_directories, pure=pure)
    if left:
        pytest.fail("left behind:\n  " + "\n  ".join(left), pytrace=False)
