"""The life of a container: stop, kill, wait, restart, pause, init, restart policies."""

import time

import pytest

from support.engines import IMAGE, ODD

IDLE = "echo ready; while :; do sleep 0.1; done"
TRAP = f"trap 'echo got-term; exit 21' TERM; trap 'echo got-usr1' USR1; {IDLE}"
DEAF = f"trap '' TERM; {IDLE}"


def test_stop_with_grace(engine):
    """stop sends the signal and waits; the container's own code is kept; it can start again."""
    name = engine.up("--network=none", IMAGE, "sh", "-c", TRAP)
    engine.until_logged(name, "ready")
    engine.ok("kill", "-s", "USR1", name)
    engine.until_logged(name, "got-usr1")
    engine.ok("kill", "-s", "10", name)
    engine.until(lambda: engine.ok("logs", name).count("got-usr1") == 2)
    engine.ok("stop", "-t", "30", name)
    state = engine.state(name)
    assert (state["Status"], state["ExitCode"], state["OOMKilled"]) == ("exited", 21, False)
    assert "got-term" in engine.ok("logs", name)
    engine.ok("start", name)
    engine.until(lambda: engine.ok("logs", name).count("ready") == 2)
    engine.ok("restart", "-t", "30", name)
    engine.until(lambda: engine.ok("logs", name).count("ready") == 3)
    assert engine.state(name)["Status"] == "running"
    engine.ok("kill", name)
    assert engine.until_status(name, "exited")["ExitCode"] == 137


def test_stop_without_mercy(engine):
    """What does not hear the signal is killed when the time is over: 137."""
    name = engine.up("--network=none", IMAGE, "sh", "-c", DEAF)
    engine.until_logged(name, "ready")
    before = time.monotonic()
    engine.ok("stop", "-t", "1", name)
    assert time.monotonic() - before >= 1
    assert engine.state(name)["ExitCode"] == 137


def test_wait_and_names(engine):
    """wait gives the exit code to everyone who waits; rename and ps know the container."""
    script = "while [ ! -e /go ]; do sleep 0.1; done; exit 33"
    name = engine.up("--network=none", IMAGE, "sh", "-c", script)
    engine.ok("rename", name, "other")
    waiting = [engine.start("wait", "other") for _ in range(2)]
    assert "other" in engine.ok("ps")
    time.sleep(0.5)  # let them wait
    engine.sh("other", "touch /go")
    for process in waiting:
        assert process.communicate(timeout=60)[0].strip() == b"33"
    assert engine.ok("wait", "other") == "33"
    assert "other" not in engine.ok("ps")
    assert "other" in engine.ok("ps", "-a")


def test_pause(engine):
    """A paused container does nothing, and goes on afterwards; it refuses to run anything."""
    script = "i=0; while :; do i=$((i+1)); echo $i >/count; sleep 0.05; done"
    name = engine.up("--network=none", "-v", "/count", IMAGE, "sh", "-c", "sleep 600")
    engine.ok("exec", "-d", name, "sh", "-c", script.replace(">/count", ">/count/n"))
    engine.until(lambda: engine("exec", name, "test", "-s", "/count/n").code == 0)
    engine.ok("pause", name)
    assert engine.state(name)["Status"] == "paused"
    assert engine("exec", name, "true").code != 0
    engine.ok("unpause", name)
    assert engine.state(name)["Status"] == "running"
    first = int(engine.sh(name, "cat /count/n") or 0)
    engine.until(lambda: int(engine.sh(name, "cat /count/n") or 0) > first)
    engine.ok("pause", name)
    engine.end(name)


def test_remove(engine):
    """A running container is not removed unless by force; what is removed is gone."""
    name = engine.up("--network=none", IMAGE, "sleep", "600")
    assert engine("rm", name).code != 0
    engine.end(name)
    assert engine("inspect", name).code != 0
    assert engine("start", name).code != 0


@pytest.mark.parametrize("limit", [2])
def test_restart_on_failure(engine, limit):
    """With on-failure:2 a failing container is started three times in all."""
    flags = ("--restart", f"on-failure:{limit}", "--network=none")
    name = engine.up(*flags, IMAGE, "sh", "-c", "echo again; exit 5")

    def three() -> bool:
        return engine.ok("logs", name).split() == ["again"] * (limit + 1)

    engine.until(three)
    state = engine.until_status(name, "exited")
    assert state["ExitCode"] == 5
    assert engine.inspect(name)["RestartCount"] == limit


def test_init_reaps(engine):
    """With --init the first process is an init that passes signals on and reaps orphans."""
    script = f"(sleep 0.2 &); trap 'exit 3' TERM; {IDLE}"
    name = engine.up("--init", "--network=none", IMAGE, "sh", "-c", script)
    engine.until_logged(name, "ready")
    assert "init" in engine.sh(name, "tr '\\0' ' ' </proc/1/cmdline; readlink /proc/1/exe")
    time.sleep(0.5)
    assert "Z" not in engine.sh(name, "cat /proc/[0-9]*/stat | cut -d' ' -f3 | tr -d '\\n'")
    engine.ok("stop", "-t", "20", name)
    assert engine.state(name)["ExitCode"] == 3


def test_image_settings(engine):
    """User, directory, volume, entrypoint, environment and stop signal of an image hold."""
    assert engine.ok("run", "--rm", "--network=none", ODD).split() == ["ann", "/home/ann"]
    words = f"trap 'echo got-int; exit 8' INT; echo $ODD; grep -c ' /kept ' /proc/mounts; {IDLE}"
    name = engine.up("--network=none", ODD, words)
    assert engine.until_logged(name, "ready").split()[:2] == ["yes", "1"]
    engine.ok("stop", "-t", "20", name)
    assert engine.state(name)["ExitCode"] == 8
    flags = ("run", "--rm", "--network=none", "--entrypoint", "echo")
    assert engine.ok(*flags, ODD, "a", "b") == "a b"


def test_made_ready_but_not_started(podman):
    """podman init makes the container; start lets it run; one made and never started is removed."""
    for name in ("first", "second"):
        podman.ok("create", "--name", name, "--network=none", IMAGE, "sh", "-c", "echo ran; exit 2")
        podman.ok("init", name)
        assert podman.state(name)["Status"] in ("created", "initialized")
    assert podman.ok("logs", "first") == ""
    assert podman("start", "-a", "first").out == "ran"
    assert podman.until_status("first", "exited")["ExitCode"] == 2
    podman.end("second")
