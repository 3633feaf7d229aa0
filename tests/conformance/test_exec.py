"""Processes beside the first: exec with its options, by a file, with terminals."""

import os

import pytest

from conformance.bundle import config, tmpfs
from conformance.console import Console
from conformance.container import answers, reap
from conformance.facts import capabilities, limits, status

CONTAINER = {
    "env": ["PATH=/bin", "OWN=container"], "cwd": "/tmp", "oomScoreAdj": 111,
    "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 256, "hard": 256}],
    "user": {"uid": 0, "gid": 0, "umask": 0o027},
}  # fmt: skip
FILTER = {
    "defaultAction": "SCMP_ACT_ALLOW",
    "syscalls": [{"names": ["getppid"], "action": "SCMP_ACT_ERRNO", "errnoRet": 55}],
}


@pytest.fixture(scope="module")
def host(suite):
    """A container with settings that what is added inherits, or not."""
    spec = config(
        "sleep", "100000", process=CONTAINER, hostname="exec-host", mounts=(tmpfs("/mem"),),
        linux={"seccomp": FILTER, "resources": {"pids": {"limit": 60}}},
    )  # fmt: skip
    with suite.running(spec) as container:
        yield container


def process(*args: str, **more) -> dict:
    """A process.json."""
    return {
        "args": list(args),
        "cwd": "/",
        "env": ["PATH=/bin"],
        "user": {"uid": 0, "gid": 0},
    } | more


def asked(container, spec: dict, *options: str):
    """The facts of a process that was added by a file."""
    with container.spawn(spec | {"args": ["/bin/probe", "ask"]}, *options) as added:
        added.wait()
        return answers(added).facts


@pytest.fixture(scope="module")
def flagged(host):
    """The facts of a process added by options alone."""
    options = ["--cwd", "/etc", "--env", "ADDED=one two", "--env", "MORE=2", "--user", "1000:50"]
    done = host.exec(*options, "--", "/bin/probe", "ask").ok()
    return answers(Spoken(done.out)).facts


class Spoken:
    """Output in a process's place."""

    code = 0
    err = ""

    def __init__(self, out: str) -> None:
        self.out = out


@pytest.fixture(scope="module")
def filed(host):
    """The facts of a process added by a file with everything in it."""
    spec = process(
        cwd="/home", env=["PATH=/bin", "BY=file"], noNewPrivileges=True,
        user={"uid": 1000, "gid": 1000, "additionalGids": [50, 7], "umask": 0o077},
        rlimits=[{"type": "RLIMIT_NOFILE", "soft": 99, "hard": 100}],
        capabilities={n: ["CAP_KILL"] for n in
                      ("bounding", "permitted", "effective", "inheritable", "ambient")},
    )  # fmt: skip
    return asked(host, spec)


def test_exec_output(host):
    """What it prints comes out."""
    assert host.sh("echo out") == "out\n"


def test_exec_errors_are_apart(host):
    """Standard error is apart from standard output."""
    done = host.exec("--", "sh", "-c", "echo err >&2; echo out").ok()
    assert (done.out, done.err) == ("out\n", "err\n")


def test_exec_input(host):
    """What is written to it arrives, to its end."""
    assert host.exec("--", "wc", "-c", stdin="x" * 300_000).ok().out == "300000\n"


def test_exec_large_output(host):
    """Megabytes come out whole."""
    assert len(host.exec("--", "probe", "write", str(3 << 20)).ok().out) == 3 << 20


@pytest.mark.parametrize("code", [1, 42, 255])
def test_exec_code(host, code):
    """The call ends with the code of the process."""
    assert host.exec("--", "sh", "-c", f"exit {code}").code == code


@pytest.mark.parametrize(("name", "code"), [("KILL", 137), ("TERM", 143), ("SEGV", 139)])
def test_exec_signal(host, name, code):
    """Death by a signal is 128 and its number."""
    assert host.exec("--", "sh", "-c", f"kill -{name} $$").code == code


def test_exec_sees_the_container(host):
    """It is in the container: its name, its processes, its mounts, its files."""
    seen = host.sh("hostname; cat /proc/1/comm; grep -c ' /mem ' /proc/mounts; cat /etc/passwd")
    assert seen.startswith("exec-host\nsleep\n1\nroot:")


def test_exec_is_in_its_group(host):
    """It is in the container's cgroup."""
    groups = host.sh("cat /proc/self/cgroup; echo; cat /proc/1/cgroup").split("\n\n")
    assert groups[0].split() == groups[1].split()


def test_exec_is_filtered(host):
    """The container's seccomp filter holds for it."""
    assert host.exec("--", "probe", "call", "getppid").ok().out == "-1 55\n"


def test_exec_has_the_limits(host):
    """The container's limits hold for what is added without its own."""
    assert "256" in host.sh("grep 'open files' /proc/self/limits").split()


def test_exec_environment(host):
    """Without options it has the container's environment and directory."""
    assert host.sh("echo $OWN; pwd") == "container\n/tmp\n"


def test_exec_cwd(flagged):
    """--cwd."""
    assert flagged.cwd == "/etc"


def test_exec_env(flagged):
    """--env, given twice, adds to the container's environment."""
    assert {"ADDED=one two", "MORE=2", "OWN=container"} <= set(flagged.env)


def test_exec_user(flagged):
    """--user UID:GID."""
    assert (flagged.uid, flagged.gid) == (1000, 50)


@pytest.mark.needs("additional-gids")
def test_exec_additional_gids(host):
    """--additional-gids, given twice."""
    out = host.exec("--additional-gids", "7", "--additional-gids", "77", "--", "id", "-G").ok().out
    assert {"7", "77"} <= set(out.split())


def test_exec_capability(host):
    """--cap adds a capability."""
    assert not int(host.sh("grep CapEff /proc/self/status").split()[1], 16) >> 21 & 1
    done = host.exec("--cap", "CAP_SYS_ADMIN", "--", "grep", "CapEff", "/proc/self/status").ok()
    assert int(done.out.split()[1], 16) >> 21 & 1


def test_exec_no_new_privileges(host):
    """--no-new-privs."""
    out = host.exec("--no-new-privs", "--", "grep", "NoNewPrivs", "/proc/self/status").ok().out
    assert out.split() == ["NoNewPrivs:", "1"]


def test_exec_detached_returns(host):
    """--detach returns while the process runs; the pid file has its pid."""
    with host.spawn(process("sh", "-c", "echo on; sleep 1000")) as added:
        added.streams.expect("on\n")
        os.kill(added.pid, 9)
        assert added.wait() == 137


def test_exec_detached_by_words(host):
    """--detach with the command's words instead of a file."""
    pid_file = f"{host.bundle}/words.pid"
    host.exec("--detach", "--pid-file", pid_file, "--", "sh", "-c", "exit 6").ok()
    with open(pid_file, encoding="utf-8") as file:
        assert reap(int(file.read())) == 6


def test_filed_user(filed):
    """process.json: user and groups."""
    assert (filed.uid, filed.gid) == (1000, 1000)
    assert set(filed.groups) - {1000} == {50, 7}


def test_filed_cwd_and_environment(filed):
    """process.json: directory and environment, which replaces the container's."""
    assert filed.cwd == "/home"
    assert filed.env[:2] == ["PATH=/bin", "BY=file"]
    assert "OWN=container" not in filed.env


def test_filed_umask(filed):
    """process.json: the mask."""
    assert filed.umask == 0o077


def test_filed_limits(filed):
    """process.json: limits."""
    assert limits(filed)["Max open files"] == ("99", "100")


def test_filed_privileges(filed):
    """process.json: noNewPrivileges and capabilities."""
    assert status(filed)["NoNewPrivs"] == "1"
    assert capabilities(filed, "CapBnd") == {5}
    assert capabilities(filed, "CapAmb") == {5}


def test_filed_without_rights(host):
    """process.json that says nothing of capabilities: they are the container's."""
    found = asked(host, process())
    assert capabilities(found, "CapEff") == capabilities(found, "CapPrm") != set()


def test_filed_without_any_right(host):
    """Capabilities that are an empty object are none."""
    assert capabilities(asked(host, process(capabilities={})), "CapEff") == set()


@pytest.mark.needs("cgroup")
def test_exec_in_the_containers_group(host):
    """--cgroup / is the container's own group."""
    assert host.exec("--cgroup", "/", "--", "echo", "there").ok().out == "there\n"


def test_filed_has_no_stray_descriptors(filed):
    """Only the three streams are open."""
    assert sorted(filed.fds) == ["0", "1", "2"]


def test_exec_leads_a_session(filed):
    """It leads a session of its own."""
    assert filed.sid == filed.pid


def test_exec_terminal(host, suite):
    """--tty and --console-socket: a terminal of the file's size, controlling, by SCM_RIGHTS."""
    spec = process("sh", "-c", "read line; stty size; tty; echo got $line; exit 4",
                   terminal=True, consoleSize={"height": 20, "width": 70})  # fmt: skip
    with (
        Console(suite.folder()) as console,
        host.spawn(spec, "--tty", "--console-socket", console.path) as added,
    ):
        console.accept()
        assert console.size == (20, 70)
        console.send(b"word\r")
        seen = console.drain()
        added.streams.drain()
        assert added.wait() == 4
    assert "20 70" in seen
    assert "/dev/pts/" in seen
    assert "got word" in seen


def test_terminals_of_execs_are_given_back(host, suite):
    """What ended holds no terminal."""
    for _ in range(3):
        with (
            Console(suite.folder()) as console,
            host.spawn(process("tty", terminal=True), "--console-socket", console.path) as added,
        ):
            console.accept()
            seen = console.drain()
            assert added.wait() == 0
        assert "/dev/pts/0" in seen


def test_exec_terminal_resizes(host, suite):
    """A later size arrives."""
    spec = process("sh", "-c", "read line; stty size", terminal=True)
    with (
        Console(suite.folder()) as console,
        host.spawn(spec, "--console-socket", console.path) as added,
    ):
        console.accept()
        console.resize(44, 155)
        console.send(b"\r")
        assert "44 155" in console.drain()
        assert added.wait() == 0


def test_exec_terminal_needs_a_socket(host):
    """Detached with a terminal and no socket is refused."""
    added = host.spawn(process("true", terminal=True), "--tty")
    added.finish()
    added.result.refused("console", "tty", "terminal")


@pytest.mark.parametrize(
    ("program", "words"),
    [
        ("nope", ("executable file",)),
        ("/bin/nope", ("no such file or directory",)),
        ("/etc/passwd", ("permission denied",)),
        ("/etc", ("permission denied", "operation not permitted")),
    ],
    ids=["name", "path", "mode", "directory"],
)
def test_exec_of_what_cannot_be(host, program, words):
    """It fails before it starts, in words that engines make 126 and 127 of, in the log."""
    added = host.spawn(process(program))
    added.finish()
    added.result.refused(*words)
    assert added.result.logged


def test_exec_where_nothing_is(host):
    """A working directory that is missing is an error, in words that engines make 127 of."""
    added = host.spawn(process("true", cwd="/nowhere"))
    added.finish()
    added.result.refused("no such file or directory")
    assert "/nowhere" in added.result.message


def test_exec_of_nothing_is_refused(host):
    """A command is needed."""
    host.runtime("exec", host.id).refused()


def test_exec_file_that_is_missing(host):
    """A process file that is not there is an error."""
    host.runtime("exec", "--process", "/nowhere/process", host.id).refused("no such file")


def test_two_at_once(host):
    """Two of them at once do not mix."""
    loop = "for n in 1 2 3 4 5; do echo {}; sleep 0.02; done"
    with (
        host.spawn(process("sh", "-c", loop.format("a"))) as one,
        host.spawn(process("sh", "-c", loop.format("b"))) as two,
    ):
        assert (one.wait(), two.wait()) == (0, 0)
    assert (one.out, two.out) == ("a\n" * 5, "b\n" * 5)


def test_child_of_an_exec_stays(host):
    """What an added process leaves in the background lives on in the container."""
    host.sh("sleep 3141 >/dev/null 2>&1 &")
    assert "3141" in host.sh("cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' '")
    host.sh("kill -9 $(pidof sleep | tr ' ' '\\n' | grep -v -x 1)")


def test_exec_descriptors(host):
    """--preserve-fds is accepted; without a descriptor nothing is passed."""
    assert host.exec("--preserve-fds", "0", "--", "echo", "on").ok().out == "on\n"


def test_exec_does_not_end_the_container(host):
    """After all of this the container runs."""
    assert host.status == "running"
