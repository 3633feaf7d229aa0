"""Processes started in a running container: exec in all its forms, health checks, top."""

import json

from support.engines import IMAGE


def test_exec(engine):
    """exec runs as another user, elsewhere, with more environment, with input; codes come back."""
    name = engine.up("--network=none", "-e", "A=1", IMAGE, "sleep", "600")
    flags = ("-u", "ann:staff", "-w", "/tmp", "-e", "B=2")
    words = "id -un; id -gn; pwd; echo $A$B; exit 9"
    result = engine("exec", *flags, name, "sh", "-c", words)
    assert (result.out.split(), result.code) == (["ann", "staff", "/tmp", "12"], 9)
    assert engine.ok("exec", "-i", name, "wc", "-c", input=b"x" * 300_000) == "300000"
    result = engine("exec", name, "sh", "-c", "echo out; echo err >&2")
    assert (result.out, result.err) == ("out", "err")
    assert engine("exec", name, "/no/such/program").code in (126, 127)
    assert engine("exec", name, "/etc/passwd").code == 126
    assert engine("exec", name, "sh", "-c", "kill -9 $$").code == 137
    engine.ok("exec", "-d", name, "sh", "-c", "echo $$ >/tmp/mark; sleep 600")
    assert engine.until(lambda: engine("exec", name, "cat", "/tmp/mark").out).isdigit()
    assert engine.sh(name, "cat /proc/1/cmdline | tr '\\0' ' '") == "sleep 600"
    assert engine.state(name)["Status"] == "running"


def test_exec_codes_are_those_of_runc(engine, same):
    """What cannot be started by exec gives the engine's own code."""

    def codes(engine):
        name = engine.up("--network=none", IMAGE, "sleep", "600")
        words = (("/no/such/program",), ("/etc/passwd",), ("-w", "/no/such/directory", "true"))
        found = [_code(engine, name, *each) for each in words]
        found.append(engine("exec", "-u", "nobody-knows", name, "true").code)
        engine.end(name)
        found.append(engine("exec", name, "true").code)
        return found

    assert 0 not in same(engine, codes)


def _code(engine, name: str, *words: str) -> int:
    flags = words[:2] if words[0].startswith("-") else ()
    return engine("exec", *flags, name, *words[len(flags) :]).code


def test_exec_with_a_terminal(engine):
    """exec -it has a terminal of its own, of the right size even when that changes."""
    name = engine.up("--network=none", IMAGE, "sleep", "600")
    with engine.terminal("exec", "-it", name, "sh", rows=33, columns=99) as terminal:
        terminal.expect(b"# ")
        terminal.size(33, 99)
        terminal.resize(44, 111)
        terminal.size(44, 111)
        terminal.send(b"tty; exit 6\r")
        terminal.expect(b"/dev/pts/")
        assert terminal.wait() == 6


def test_many_execs_at_once(engine):
    """Eight at a time do not get into each other's way."""
    name = engine.up("--network=none", IMAGE, "sleep", "600")
    running = [engine.start("exec", name, "sh", "-c", f"echo {n}; exit {n}") for n in range(8)]
    for n, process in enumerate(running):
        out, err = process.communicate(timeout=60)
        assert (out.split(), process.returncode) == ([b"%d" % n], n), err


def test_top(engine):
    """top lists the processes of the container."""
    name = engine.up("--network=none", IMAGE, "sh", "-c", "sleep 611 & exec sleep 612")
    engine.until(lambda: "612" in engine.sh(name, "ps"))
    if engine.kind == "podman":
        assert _podman_top(engine, name)
    else:
        assert len(engine.ok("top", name).splitlines()) >= 2
        assert "sleep 61" in engine.ok("top", name, "-o", "pid,args") or engine.runtime != "runc"


def _podman_top(engine, name: str) -> bool:
    """Podman reads the processes itself, or has a ps of the container list them."""
    rows = engine.ok("top", name, "pid", "args").splitlines()[1:]
    inside = engine.ok("top", name, "-o", "pid,args")
    return "sleep 612" in inside and (len(rows) == 2 or engine.runtime != "runc")


def test_health(engine):
    """A health check runs in the container and its outcome is the container's health."""
    flags = ["--health-cmd", "test -e /well", "--health-interval=1s", "--health-retries=1"]
    if engine.kind == "podman":  # timers would be systemd's
        flags[2] = "--health-interval=disable"
    name = engine.up("--network=none", *flags, IMAGE, "sleep", "600")

    def health() -> str:
        if engine.kind == "podman":
            engine("healthcheck", "run", name)
        state = engine.state(name)
        return (state.get("Health") or state.get("Healthcheck"))["Status"]

    engine.until(lambda: health() == "unhealthy")
    engine.sh(name, "touch /well")
    engine.until(lambda: health() == "healthy")


def test_inspect_tells_of_the_runtime(engine):
    """inspect has the pid of a living process, the state and the runtime's name."""
    note = "--annotation" if engine.kind == "podman" else "--label"
    flags = ("--network=none", "--label", "a=b", note, "c=d")
    name = engine.up(*flags, IMAGE, "sleep", "600")
    about = engine.inspect(name)
    pid = about["State"]["Pid"]
    with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
        assert file.read().rpartition(")")[2].split()[0] in "SRD"
    assert engine.runtime in json.dumps(about.get("OCIRuntime") or about["HostConfig"]["Runtime"])
    assert about["Config"]["Labels"]["a"] == "b"
    if engine.kind == "podman":
        assert about["Config"]["Annotations"]["c"] == "d"
