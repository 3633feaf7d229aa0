"""Memory, processors, numbers of processes: limits, their change, what is measured."""

import json

from support.engines import IMAGE

HOG = "x=x; while :; do x=$x$x; done"  # a shell that doubles a string until it is killed


def test_limits_and_their_change(engine, same):
    """Limits given at the start hold inside; update changes them; what cannot be is refused."""

    def limits(engine):
        flags = ("--memory=256m", "--memory-swap=256m", "--cpus=0.5", "--pids-limit=40")
        name = engine.up("--network=none", *flags, IMAGE, "sleep", "600")
        many = "i=0; while [ $i -lt 60 ]; do sleep 15 & i=$((i+1)); done; echo all"
        found = [engine("exec", name, "sh", "-c", many).out]
        engine.until(lambda: engine("exec", name, "true").code == 0)
        host = engine.inspect(name)["HostConfig"]
        found += [host["Memory"], host["PidsLimit"]]
        changes = ["--memory=300m", "--memory-swap=300m", "--cpus=1"]
        if engine.kind == "docker":
            changes.append("--pids-limit=100")
            engine.ok("update", *changes, name)
            found.append(engine("exec", name, "sh", "-c", many).out)
        else:  # what Podman's update can do here depends on the control groups
            found.append(engine("update", *changes, name).code)
        engine.end(name)
        return found

    found = same(engine, limits)
    assert found[:3] == ["", 256 << 20, 40]


def test_stats(engine):
    """stats measure memory, processes and processor time."""
    name = engine.up(IMAGE, "sh", "-c", "sleep 600 & while :; do :; done")
    if engine.kind == "podman":
        rows = json.loads(engine.ok("stats", "--no-stream", "--format", "json", name))
        assert rows[0]["mem_usage"].split(" / ")[0] not in ("", "0B")
        assert int(rows[0]["pids"]) >= 1
    else:
        row = json.loads(engine.ok("stats", "--no-stream", "--format", "{{json .}}", name))
        assert row["MemUsage"].split(" / ")[0] not in ("", "0B")
        assert int(row["PIDs"]) >= 1
        assert float(row["CPUPerc"].rstrip("%")) > 1
    engine.ok("kill", name)


def test_out_of_memory(engine, same):
    """A container that takes more memory than it may is killed: 137, and the engine is told."""

    def killed(engine):
        flags = ("--memory=64m", "--memory-swap=64m", "--network=none")
        name = engine.up(*flags, IMAGE, "sh", "-c", HOG)
        state = engine.until_status(name, "exited", timeout=60)
        engine.end(name)
        return state["ExitCode"], state["OOMKilled"]

    assert same(engine, killed)[0] == 137


def test_out_of_memory_of_a_child(engine):
    """When a child is killed for want of memory, the container goes on."""
    flags = ("--memory=96m", "--memory-swap=96m", "--network=none")
    words = ("sh", "-c", f"sh -c '{HOG}'; echo child $?; sleep 600")
    name = engine.up(*flags, IMAGE, *words)
    engine.until_logged(name, "child 137")
    assert engine.sh(name, "echo lives") == "lives"
