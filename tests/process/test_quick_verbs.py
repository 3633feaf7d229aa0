"""What the verbs of ``kata-runtime`` that engines call most load: start time is mostly imports.

The one rule: the verb is run, against a supervisor that answers; what it loaded on the way is all
on a list here, and a new line needs a reason.
"""

import os
import subprocess

import pytest

from kata.runtime.control import ControlServer
from kata.runtime.store import CREATED, RUNNING, STOPPED, ContainerState, Store, new_id
from kata.wire.calls import Empty
from support.source import SOURCE

PYTHON = "/usr/bin/python3"
EVERY = {
    "kata", "kata.cli", "kata.cli.grammar", "kata.cli.parse", "kata.cli.runtime",
    "kata.cli.runtime.containers", "kata.cli.runtime.grammar", "kata.cli.runtime.main",
    "kata.errors", "kata.runtime", "kata.runtime.store", "kata.wire", "kata.wire.quickjson",
    "kata.wire.record",
}  # fmt: skip
CALL = {  # a call to the supervisor: messages and wire, no table of an API
    "kata.runtime.control", "kata.wire.calls", "kata.wire.protobuf", "kata.wire.ttrpc",
}  # fmt: skip
GROUPS = {  # only the engine's delete removes the container's control group
    "kata.linux", "kata.linux.cgroups", "kata.resources", "kata.resources.group",
    "kata.resources.plan",
}  # fmt: skip
VERBS = {
    "state": (RUNNING, {"kata.oci", "kata.oci.state", "kata.oci.version"}),
    "kill": (RUNNING, {"kata.oci", "kata.oci.signals", *CALL}),
    "start": (CREATED, CALL),
    "delete": (STOPPED, {"kata.runtime.cleanup", *CALL, *GROUPS}),
}
# of the standard library: os and its own, JSON's C part, sockets, locks, the collector's switch
FOREIGN = {
    "__future__", "_collections_abc", "_json", "_socket", "_stat", "_struct", "errno", "fcntl",
    "gc", "genericpath", "os", "os.path", "posixpath", "stat",
}  # fmt: skip
RUN = """
import sys
before = set(sys.modules)
sys.path.insert(0, sys.argv[1])
from kata.cli.runtime.main import main
code = main(sys.argv[2:])
print(*sorted(set(sys.modules) - before), file=sys.stderr)
raise SystemExit(code)
"""


@pytest.mark.parametrize("verb", VERBS)
def test_quick_verbs_load_next_to_nothing(verb, tmp_path):
    """Engines call these several times for each container: no verb loads what it does not use."""
    status, own = VERBS[verb]
    store = Store(str(tmp_path))
    state = ContainerState(id=new_id(), name="box", status=status, cgroup="kata-test/none")
    lock = store.create(state)
    server = ControlServer(dict.fromkeys(("Signal", "Start"), lambda *_: Empty()))
    server.listen(store.directory(state.id))
    if verb == "delete":
        os.close(lock)
    try:
        done = subprocess.run(
            [PYTHON, "-I", "-S", "-c", RUN, SOURCE, "--root", str(tmp_path), verb, "box"],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
    finally:
        server.close()
        if verb != "delete":
            os.close(lock)
    assert done.returncode == 0, done.stderr
    found = set(done.stderr.splitlines()[-1].split())
    assert {n for n in found if n.startswith("kata")} <= {*EVERY, *own, f"kata.cli.runtime.{verb}"}
    assert {n for n in found if not n.startswith("kata")} <= FOREIGN
