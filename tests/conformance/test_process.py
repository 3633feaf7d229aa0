"""The process: what config.json says of it is what it finds."""

import os

import pytest

from conformance.bundle import config
from conformance.container import answers
from conformance.facts import limits, status

ENVIRONMENT = [
    "PATH=/bin", "EMPTY=", "TWO=a=b", "SPACE= x y ", "LINE=one\ntwo", "SNOW=\u2603", "lower_case=1",
]  # fmt: skip
RLIMITS = [
    {"type": "RLIMIT_NOFILE", "soft": 600, "hard": 1500},  # of two the last counts
    {"type": "RLIMIT_NOFILE", "soft": 512, "hard": 1000},
    {"type": "RLIMIT_CORE", "soft": 0, "hard": 4096},
    {"type": "RLIMIT_NPROC", "soft": 400, "hard": 500},
    {"type": "RLIMIT_FSIZE", "soft": 1 << 30, "hard": 1 << 31},
]


@pytest.fixture(scope="module")
def plain(suite):
    """Root, with a directory, an environment, limits and a score."""
    process = {
        "cwd": "/var/new/deep", "env": ENVIRONMENT, "rlimits": RLIMITS, "oomScoreAdj": 321,
        "noNewPrivileges": False, "user": {"uid": 0, "gid": 0, "additionalGids": [5, 50, 4242]},
    }  # fmt: skip
    return suite.ask(
        config(process=process),
        stdout="echo through >/proc/1/fd/1 && echo done",
        stdin="cat </proc/1/fd/0 | wc -c",
    )


@pytest.fixture(scope="module")
def ann(suite):
    """A user without rights, with groups and a mask."""
    user = {"uid": 1000, "gid": 1000, "additionalGids": [50, 7], "umask": 0o027}
    spec = config(process={"user": user, "cwd": "/home/ann"})
    return suite.ask(
        spec,
        made="touch made && mkdir dir && stat -c '%a %u %g' made dir",
        denied="echo x >/etc/passwd",
        reopened="echo again >/dev/stdout && echo error >/dev/stderr",
        home="echo $HOME",
    )


def test_environment_is_exact_and_in_order(plain):
    """Every variable arrives as it is, in order; HOME alone is added, from /etc/passwd."""
    assert plain.facts.env[: len(ENVIRONMENT)] == ENVIRONMENT
    assert plain.facts.env[len(ENVIRONMENT) :] == ["HOME=/root"]


def test_cwd_that_is_missing_is_made(plain):
    """A working directory that the root file system lacks is created."""
    assert plain.facts.cwd == "/var/new/deep"


def test_first_process_is_pid_1(plain):
    """The process is the first of its pid namespace and has no parent in it."""
    assert (plain.facts.pid, plain.facts.ppid) == (1, 0)


def test_leads_its_session(plain):
    """The process leads a session and a group."""
    assert (plain.facts.sid, plain.facts.pgid) == (1, 1)


def test_root_is_root(plain):
    """User and group 0, real and effective."""
    facts = plain.facts
    assert (facts.uid, facts.euid, facts.gid, facts.egid) == (0, 0, 0, 0)


def test_additional_groups_of_root(plain):
    """Additional groups are exactly those of the config."""
    assert set(plain.facts.groups) - {0} == {5, 50, 4242}


@pytest.mark.parametrize(
    ("name", "soft", "hard"),
    [
        ("Max open files", "512", "1000"),
        ("Max core file size", "0", "4096"),
        ("Max processes", "400", "500"),
        ("Max file size", "1073741824", "2147483648"),
    ],
)
def test_rlimits(plain, name, soft, hard):
    """Each limit has its soft and hard value; of one that is there twice, the last ones."""
    assert limits(plain.facts)[name] == (soft, hard)


def test_oom_score(plain):
    """oomScoreAdj is set."""
    assert plain.facts.oom_score_adj == "321\n"


def test_privileges_may_be_gained(plain):
    """Without noNewPrivileges the bit is not set."""
    assert status(plain.facts)["NoNewPrivs"] == "0"


def test_no_privileges_are_gained(ann):
    """noNewPrivileges sets the bit."""
    assert status(ann.facts)["NoNewPrivs"] == "1"


def test_only_standard_descriptors(plain):
    """No descriptor of the runtime's or the caller's leaks into the container."""
    assert sorted(plain.facts.fds) == ["0", "1", "2"]


def test_no_signal_is_blocked_or_ignored(plain):
    """The program starts with an empty mask and default actions, whatever the caller's are."""
    found = status(plain.facts)
    assert int(found["SigBlk"], 16) == 0
    internal = 3 << 31  # 32 and 33 are the C library's: posix_spawn leaves them ignored
    assert int(found["SigIgn"], 16) & ~internal == 0


def test_no_terminal_without_asking(plain):
    """Without a terminal none of the streams is one, and there is no controlling one."""
    assert plain.facts.tty == [0, 0, 0]
    assert plain.facts.controlling == 0


def test_default_scheduling(plain):
    """Policy and niceness are the usual ones."""
    assert (plain.facts.policy, plain.facts.nice) == (0, 0)


def test_default_umask(plain):
    """The mask is 0022 where the config gives none."""
    assert plain.facts.umask == 0o022


def test_standard_output_can_be_opened_again(plain):
    """/proc/1/fd/1 can be opened by root, and what is written there comes out."""
    assert plain.stdout.out == "done\n"
    assert "through\n" in plain.container.out


def test_standard_input_is_at_its_end(plain):
    """An engine's /dev/null as input gives nothing."""
    assert plain.stdin.out == "0\n"


def test_user_and_group(ann):
    """The user and group of the config, real and effective."""
    facts = ann.facts
    assert (facts.uid, facts.euid, facts.gid, facts.egid) == (1000, 1000, 1000, 1000)


def test_additional_groups_of_a_user(ann):
    """A user's additional groups are those of the config."""
    assert set(ann.facts.groups) - {1000} == {50, 7}


def test_umask(ann):
    """The mask of the config holds for the process."""
    assert ann.facts.umask == 0o027


def test_umask_shapes_files(ann):
    """What the process makes has the modes the mask leaves, and its owner."""
    assert ann.made.out == "640 1000 1000\n750 1000 1000\n"


def test_user_has_no_capabilities(ann):
    """A user without ambient capabilities has none in effect."""
    assert int(status(ann.facts)["CapEff"], 16) == 0


def test_user_cannot_write_what_is_roots(ann):
    """File permissions hold."""
    assert ann.denied.code != 0
    assert "ermission denied" in ann.denied.out


def test_user_can_open_its_streams_again(ann):
    """A user may write to /dev/stdout and /dev/stderr, which engines' pipes are."""
    assert ann.reopened.code == 0, ann.reopened.out


def test_home_of_a_user(ann):
    """HOME is the user's home in the container's /etc/passwd."""
    assert ann.home.out == "/home/ann\n"


@pytest.fixture(scope="module")
def worded(suite):
    """A program found by PATH, with arguments of every kind, in a directory of its own."""
    args = ["probe", "facts", "", "a b", "it's", '"q"', "$HOME", "*", "\\", "\u2603", "x\ny", "--"]
    spec = config(*args, process={"env": ["PATH=/nowhere:/bin", "HOME=/mine"]})
    return args, answers(suite.done(spec)).facts


def test_arguments_are_exact(worded):
    """Arguments arrive as they are: empty, with spaces, quotes, newlines, beyond ASCII."""
    args, facts = worded
    assert facts.args == args


def test_program_is_found_by_path(worded):
    """A name without a slash is looked up in the PATH of the process's environment."""
    assert worded[1].args[0] == "probe"


def test_home_of_the_config_stays(worded):
    """A HOME in the config is not replaced."""
    assert worded[1].env == ["PATH=/nowhere:/bin", "HOME=/mine"]


def test_relative_program(suite):
    """A program with a slash is relative to the working directory."""
    done = suite.done(config("./probe", "write", "64", process={"cwd": "/bin"}))
    assert len(done.out) == 64


def test_symlink_to_a_program(suite):
    """argv[0] is the name given, not what a link leads to: busybox needs it."""
    assert suite.done(config("/bin/echo", "by link")).out == "by link\n"


def test_script_with_an_interpreter(suite):
    """A script is run by the interpreter that its first line names."""
    container = suite.container(config("/script", "word"))
    with open(f"{container.rootfs}/script", "w", encoding="utf-8") as file:
        file.write("#!/bin/sh\necho $0 $1\n")
    os.chmod(f"{container.rootfs}/script", 0o755)
    try:
        container.create().ok()
        container.start().ok()
        assert container.wait() == 0
        assert container.out == "/script word\n"
    finally:
        container.delete("--force")
        container.finish()


@pytest.mark.parametrize(
    ("program", "words"),
    [
        ("nope", ("executable file", "not found in")),
        ("/bin/nope", ("no such file or directory",)),
        ("/etc/passwd", ("permission denied",)),
        ("/etc", ("permission denied", "operation not permitted")),
        ("/etc/passwd/x", ("not a directory",)),
    ],
    ids=["name", "path", "mode", "directory", "through-a-file"],
)
def test_program_that_cannot_be(suite, program, words):
    """Create fails and names the fault in the words that engines make 126 and 127 of."""
    suite.refused(config(program)).refused(*words)


def test_refusal_names_the_program(suite):
    """The message names the program that is missing."""
    assert "/bin/nope" in suite.refused(config("/bin/nope")).message


def test_unknown_rlimit_is_refused(suite):
    """A limit that does not exist is an error."""
    unknown = [{"type": "RLIMIT_NOPE", "soft": 1, "hard": 1}]
    suite.refused(config("true", process={"rlimits": unknown})).refused("rlimit")


@pytest.fixture(scope="module")
def scheduled(suite):
    """A process with everything about scheduling that the runtime claims."""
    process: dict = {}
    if not suite.runtime.lacks("ioPriority"):
        process["ioPriority"] = {"class": "IOPRIO_CLASS_BE", "priority": 6}
    if not suite.runtime.lacks("scheduler"):
        process["scheduler"] = {"policy": "SCHED_BATCH", "nice": 5}
    spec = config(process=process)
    if not suite.runtime.lacks("personality"):
        spec["linux"]["personality"] = {"domain": "LINUX32"}
    return suite.ask(spec, machine="uname -m")


@pytest.mark.needs("ioPriority")
def test_io_priority(scheduled):
    """ioPriority sets class and level."""
    assert scheduled.facts.ioprio == 2 << 13 | 6


@pytest.mark.needs("scheduler")
def test_scheduler_policy(scheduled):
    """The scheduler's policy is set."""
    assert scheduled.facts.policy == 3


@pytest.mark.needs("scheduler")
def test_scheduler_nice(scheduled):
    """The scheduler's niceness is set."""
    assert scheduled.facts.nice == 5


@pytest.mark.needs("personality")
def test_personality(scheduled):
    """LINUX32 shows as a machine of 32 bits."""
    assert scheduled.facts.personality & 0xFF == 8
    assert scheduled.machine.out in ("i686\n", "armv8l\n")


@pytest.mark.needs("execCPUAffinity")
def test_exec_cpu_affinity(suite):
    """An exec's process has the affinity of the config."""
    spec = config("sleep", "1000", process={"execCPUAffinity": {"initial": "0", "final": "0"}})
    with suite.running(spec) as container:
        assert "Cpus_allowed_list:\t0\n" in container.sh("cat /proc/self/status")


def test_directory_of_a_supplementary_group(suite):
    """Who may write a directory by a further group makes files in it."""
    def prepare(container):
        os.mkdir(f"{container.rootfs}/team", 0o770)
        os.chmod(f"{container.rootfs}/team", 0o770)
        os.chown(f"{container.rootfs}/team", 0, 2000)

    user = {"user": {"uid": 1000, "gid": 1000, "additionalGids": [2000]}}
    found = suite.ask(
        config(process=user), prepare=prepare, made="touch /team/x && stat -c %u:%g /team/x"
    )
    assert found.made.out == "1000:1000\n"
