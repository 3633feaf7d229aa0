"""The suite's fixtures: the runtime under test ($RUNTIME), skips by its claims, differences.

The one rule: a case that does not run says why, and a table at the end repeats it.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import shutil
import tempfile
import time

import pytest

from conformance.container import Suite
from conformance.differences import TABLES
from conformance.runtime import Runtime
from support import host, leaks
from support.source import CHECKOUT
from support.vm import DATA, SHARED_FS, Kata, current_guest

UNIFIED = "/sys/fs/cgroup/unified"
CLONE_NEWNS, MS_REC, MS_PRIVATE = 0x20000, 0x4000, 1 << 18
_RUNTIME: pytest.StashKey[Runtime] = pytest.StashKey()


def pytest_configure(config: pytest.Config) -> None:
    """Register this suite's markers."""
    config.addinivalue_line("markers", "needs(*claims): what the runtime must claim to support")


def _program() -> str:
    name = os.environ.get("RUNTIME") or f"{CHECKOUT}/bin/kata-runtime"
    return os.path.abspath(name) if "/" in name else shutil.which(name) or ""


def _hide_unified() -> None:
    """Version 2's groups are not seen beside version 1's: crun refuses both together."""
    libc = ctypes.CDLL(None, use_errno=True)
    done = (
        libc.unshare(CLONE_NEWNS) == 0
        and libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None) == 0
        and libc.umount2(UNIFIED.encode(), 2) == 0
    )
    assert done, os.strerror(ctypes.get_errno())


@pytest.fixture(scope="session")
def suite(request: pytest.FixtureRequest):
    """The runtime under test, with directories of its own; nothing may be left of it."""
    host.need_root()
    runtime = request.config.stash.get(_RUNTIME, None)
    if runtime is None:
        pytest.fail(f'no runtime "{_program() or os.environ.get("RUNTIME")}"', pytrace=False)
    if runtime.kind == "crun" and os.path.exists(f"{UNIFIED}/cgroup.controllers"):
        _hide_unified()
    made = Suite(runtime, runtime.directory)
    _bring_guest(runtime)
    before = leaks.processes()
    yield made
    if not os.path.exists(f"{UNIFIED}/cgroup.controllers"):  # hidden: crun makes directories there
        shutil.rmtree(f"{UNIFIED}/conformance", ignore_errors=True)
    left = _left(made, before)
    assert not left, "left behind:\n  " + "\n  ".join(left)


def _bring_guest(runtime: Runtime) -> None:
    """For a runtime of this checkout: the guest image that belongs to it, whatever is installed."""
    if not runtime.path.startswith(f"{CHECKOUT}/") or "KATA_CONFIG" in os.environ:
        return
    os.makedirs(DATA, exist_ok=True)
    with open(f"{DATA}.lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        current_guest(Kata(f"{runtime.directory}/state"))
    configuration = f"{runtime.directory}/configuration.toml"
    with open(configuration, "w", encoding="utf-8") as file:
        file.write(f'[runtime]\ndata_root = "{DATA}"\n{SHARED_FS}')
    os.environ["KATA_CONFIG"] = configuration


def _left(made: Suite, before: set[str]) -> list[str]:
    """Containers, processes, mounts and groups that are still there."""
    deadline = time.monotonic() + 10
    while (found := leaks.processes() - before) and time.monotonic() < deadline:
        time.sleep(0.1)
    left = [*found, *made.runtime("list", "-q").out.split()]
    with open("/proc/self/mountinfo", encoding="utf-8") as file:
        left += [line.split()[4] for line in file if made.directory in line]
    groups = []
    for directory, names, _ in os.walk("/sys/fs/cgroup", topdown=False):
        if os.path.basename(directory) == "conformance":
            groups += [f"{directory}/{name}" for name in names if name.startswith(made.prefix)]
    for group in groups:
        with contextlib.suppress(OSError):
            os.rmdir(group)
    return left if "suite.groups" in TABLES.get(made.runtime.kind, {}) else left + groups


@pytest.fixture(scope="session")
def runtime(suite: Suite) -> Runtime:
    """The runtime under test alone."""
    return suite.runtime


@pytest.fixture(autouse=True)
def nothing_left_behind():
    """Cases share containers, so the whole suite is looked at, not each case."""


def case_id(item: pytest.Item) -> str:
    """The id of a case: its file and name, "test_" left out."""
    return f"{item.path.stem.removeprefix('test_')}.{item.name.removeprefix('test_')}"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip what the runtime does not claim; expect the failure of a listed difference."""
    ours = [item for item in items if "suite" in getattr(item, "fixturenames", ())]
    program = _program()
    if not ours or os.geteuid() or not os.path.exists(program):
        return
    directory = tempfile.mkdtemp(prefix="conf-", dir="/var/tmp")
    config.add_cleanup(lambda: shutil.rmtree(directory, ignore_errors=True))
    os.chmod(directory, 0o755)
    runtime = config.stash[_RUNTIME] = Runtime(program, directory)
    for item in ours:
        claims = [claim for marker in item.iter_markers("needs") for claim in marker.args]
        if why := next(filter(None, map(runtime.lacks, claims)), ""):
            item.add_marker(pytest.mark.skip(reason=f"not claimed: {why}"))
        if reason := TABLES.get(runtime.kind, {}).get(case_id(item)):
            item.add_marker(
                pytest.mark.xfail(reason=reason, strict=not reason.startswith("sometimes"))
            )


def pytest_terminal_summary(terminalreporter) -> None:
    """The table of what was not run, and of the differences."""
    rows = []
    for kind in ("skipped", "xfailed"):
        for report in terminalreporter.stats.get(kind, []):
            why = report.longrepr[2] if kind == "skipped" else report.wasxfail
            rows.append(
                (report.nodeid.rpartition("/test_")[2], kind, why.removeprefix("Skipped: "))
            )
    if rows:
        terminalreporter.section("not run, or different")
    for nodeid, kind, why in sorted(rows):
        name = nodeid.replace(".py::test_", ".")
        terminalreporter.line(f"{name:44} {kind.replace('xfailed', 'differs'):8} {why}")
