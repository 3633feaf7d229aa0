"""The hot path imports what it needs and nothing else: start time is mostly imports.

The way of ``kata run`` to its first output is imported in a fresh interpreter as the programs
start it. What it loads of the standard library stands in ``hot_path.txt``, each with a reason.
"""

import os
import subprocess

from support.source import CHECKOUT, SOURCE

HOT = (
    "kata.cli.main", "kata.cli.run", "kata.cli.run_request", "kata.runtime.machines",
    "kata.runtime.birth", "kata.runtime.supervisor", "kata.runtime.sandbox",
    "kata.runtime.template", "kata.network.namespace", "kata.runtime.networking",
)  # fmt: skip
SHIM = (
    "kata.shim.main", "kata.shim.start", "kata.oci.honoured", "kata.runtime.birth",
    "kata.shim.workload",
)  # fmt: skip
MOST_MODULES = 110
MOST_OF_SHIM = 101
PYTHON = "/usr/bin/python3"


def loaded(*modules: str) -> list[str]:
    """What a fresh interpreter loads for some modules, over its own start."""
    script = (
        "import sys; before = set(sys.modules); sys.path.insert(0, sys.argv[1])\n"
        "for name in sys.argv[2:]: __import__(name)\n"
        "print(*sorted(set(sys.modules) - before))"
    )
    argv = [PYTHON, "-I", "-S", "-c", script, SOURCE, *modules]
    return subprocess.run(argv, stdout=subprocess.PIPE, text=True, check=True).stdout.split()


def allowed() -> set[str]:
    """The modules of ``hot_path.txt``; each line has a reason."""
    names = set()
    with open(os.path.join(CHECKOUT, "tests/style/hot_path.txt"), encoding="utf-8") as file:
        for line in file:
            if not line.startswith("#"):
                name, reason = line.split(maxsplit=1)
                assert reason.strip(), f"{name} has no reason"
                names.add(name)
    return names


def test_hot_path_loads_only_what_is_listed():
    """Each module of the standard library on the way of ``kata run`` was let in deliberately."""
    found = loaded(*HOT)
    foreign = {name for name in found if name.split(".")[0] != "kata"}
    assert foreign <= allowed(), f"not in hot_path.txt: {sorted(foreign - allowed())}"
    assert len(found) <= MOST_MODULES, f"{len(found)} modules: {found}"


def test_the_shim_loads_as_little():
    """Until its supervisor has spawned the machine; containerd waits for what it prints."""
    found = loaded(*SHIM)
    foreign = {name for name in found if name.split(".")[0] != "kata"}
    assert foreign <= allowed(), f"not in hot_path.txt: {sorted(foreign - allowed())}"
    assert len(found) <= MOST_OF_SHIM, f"{len(found)} modules: {found}"


def test_a_shim_that_serves_loads_no_more():
    """The service is imported while the machine starts, and by every sandbox on a node."""
    foreign = {n for n in loaded("kata.shim.supervisor") if not n.startswith("kata")}
    assert foreign <= allowed(), f"not in hot_path.txt: {sorted(foreign - allowed())}"


def test_help_and_completion_load_little():
    """The way in alone loads nothing but os (and the collector, to switch it off)."""
    foreign = {n for n in loaded("kata.cli.main") if not n.startswith("kata")}
    os_and_its = {"os", "os.path", "posixpath", "genericpath", "stat", "_stat"}
    assert foreign <= os_and_its | {"_collections_abc", "__future__", "gc"}
