"""When something dies or is broken: the right exit code, a message, and nothing left."""

import os
import signal

import pytest

from support import leaks
from support.engines import BROKEN, IMAGE, OUR_RUNTIME


def test_first_process_killed_from_outside(engine):
    """The pid the engine tells of is the container's: killing it ends the container with 137."""
    name = engine.up("--network=none", IMAGE, "sleep", "600")
    os.kill(engine.state(name)["Pid"], signal.SIGKILL)
    assert engine.until_status(name, "exited")["ExitCode"] == 137
    engine.ok("start", name)
    assert engine.sh(name, "echo lives") == "lives"


def test_signals_to_the_pid_arrive(engine):
    """A signal sent to the pid the engine tells of reaches the first process."""
    words = "trap 'echo got; exit 12' HUP; echo ready; while :; do sleep 0.1; done"
    name = engine.up("--network=none", IMAGE, "sh", "-c", words)
    engine.until_logged(name, "ready")
    os.kill(engine.state(name)["Pid"], signal.SIGHUP)
    assert engine.until_status(name, "exited")["ExitCode"] == 12


def _machines() -> list[int]:
    """The virtual machine monitors below this process that are somebody's."""
    nobodys = set().union(*(own() for own in leaks.pools))
    return [
        pid
        for pid in leaks.descendants(os.getpid())
        if pid not in nobodys
        and os.path.basename(leaks._read(f"/proc/{pid}/cmdline").split("\0")[0]).startswith("qemu")
    ]


def test_machine_killed(engine):
    """When the monitor is killed, container and exec end with 137; it can start again."""
    if engine.runtime == "runc":
        pytest.skip("runc has no virtual machine")
    name = engine.up("--network=none", IMAGE, "sleep", "600")
    running = engine.start("exec", name, "sleep", "600")
    engine.until(lambda: engine.sh(name, "ps").count("sleep 600") == 2)
    [machine] = _machines()
    os.kill(machine, signal.SIGKILL)
    assert engine.until_status(name, "exited")["ExitCode"] == 137
    running.communicate(timeout=60)
    assert running.returncode == 137
    engine.ok("start", name)
    assert engine.sh(name, "echo lives") == "lives"
    engine.end(name)
    engine.until(lambda: not _machines())


def test_broken_configuration(engine):
    """A runtime that cannot read its configuration says so through the engine; nothing is left."""
    if engine.runtime == "runc":
        pytest.skip("runc has no configuration")
    broken = engine.with_runtime(BROKEN)
    result = broken("run", "--rm", "--network=none", IMAGE, "true")
    assert result.code in (125, 126, 127)
    assert "broken.toml" in result.err
    assert engine.ok("ps", "-aq") == ""


def test_by_path(podman):
    """Podman takes the runtime's path in place of a name."""
    path = "/usr/sbin/runc" if podman.runtime == "runc" else OUR_RUNTIME
    engine = podman.with_runtime(path)
    result = engine("run", "--rm", "--network=none", IMAGE, "/no/such/program")
    assert result.code == 127, result.err
    assert engine.ok("run", "--rm", "--network=none", IMAGE, "echo", "ran") == "ran"


def test_conmon_killed(podman):
    """When conmon is killed the container can still be removed, and nothing is left."""
    name = podman.up("--network=none", IMAGE, "sleep", "600")
    state = podman.state(name)
    os.kill(int(state["ConmonPid"]), signal.SIGKILL)
    removing = podman.start("rm", "-f", "-t0", name)
    # an orphan now, and we stand in for init
    podman.until(lambda: state["Pid"] in leaks.children(os.getpid()))
    _, status = os.waitpid(state["Pid"], 0)
    assert os.waitstatus_to_exitcode(status) in (-9, 137)
    removing.communicate(timeout=60)  # Podman waits in vain for what conmon would tell
    podman.until(lambda: podman("rm", "-f", "-t0", name).code == 0)
