"""What a container is told on the command line, seen from inside it."""

import json

from support.engines import IMAGE

RUN = ("run", "--rm", "--network=none")
SETTINGS = (
    "--hostname=named", "--env=A=b c", "--workdir=/var", "--user=1000:50", "--group-add=5",
    "--ulimit=nofile=321:456", "--ulimit=core=0:0", "--ulimit=nproc=2000:2000", "--shm-size=3m",
    "--sysctl=kernel.msgmax=9000",
    "--tmpfs=/scratch:size=2m,mode=1777", "--cap-drop=ALL", "--cap-add=NET_BIND_SERVICE",
    "--security-opt=no-new-privileges", "--device=/dev/null:/dev/nothing:rw",
    "--add-host=friend:192.0.2.7", "--dns=192.0.2.53", "--dns-search=example.org",
    "--label=kind=test", "--init", "--oom-score-adj=500", "--stop-timeout=3",
)  # fmt: skip
QUESTIONS = {
    "name": "hostname",
    "environment": "echo $A",
    "directory": "pwd",
    "user": "id -u; id -g; id -G",
    "files": "ulimit -n; ulimit -Hn; ulimit -c",
    "shm": "df -k /dev/shm | awk 'END{print $2}'",
    "message": "cat /proc/sys/kernel/msgmax",
    "scratch": "df -k /scratch | awk 'END{print $2}'; stat -c %a /scratch",
    "capabilities": "grep -E 'CapBnd|CapPrm|CapEff' /proc/self/status | cut -f2",
    "privileges": "grep NoNewPrivs /proc/self/status | cut -f2",
    "device": "stat -c %t:%T /dev/nothing; echo x >/dev/nothing && echo written",
    "hosts": "grep -c friend /etc/hosts",
    "seccomp": "grep Seccomp: /proc/self/status | cut -f2",
    "score": "cat /proc/self/oom_score_adj",
    "masked": "cat /proc/kcore /proc/timer_list 2>/dev/null | wc -c; ls /sys/firmware | wc -l",
    "sys": "touch /sys/x /proc/sys/x 2>/dev/null; grep -c ' /sys sysfs ro' /proc/mounts",
    "fds": "ls /proc/self/fd | wc -l",
    "devices": "ls /dev | grep -vE 'kata|console' | tr '\\n' ' '",
    "mounts": "cut -d' ' -f2 /proc/mounts | grep -vE '^/(proc|sys|dev)/.|^/etc|init' | sort -u",
    "umask": "umask",
}
EXPECTED = {
    "name": "named", "environment": "b c", "directory": "/var", "files": "321 456 0",
    "shm": "3072", "message": "9000", "scratch": "2048 1777", "privileges": "1",
    "device": "1:3 written", "hosts": "1", "seccomp": "2", "score": "500", "sys": "1",
}  # fmt: skip


def _answers(engine, *flags: str, questions=QUESTIONS) -> dict[str, str]:
    script = "\n".join(f'echo "@{key}"; {words}' for key, words in questions.items())
    out = engine.ok("run", "--rm", *flags, IMAGE, "sh", "-c", script)
    parts = (part.partition("\n") for part in out.split("@")[1:])
    return {key: " ".join(answer.split()) for key, _, answer in parts}


def test_many_settings_at_once(engine, same):
    """Every setting of the command line arrives, and all else is as with runc."""
    answers = same(engine, lambda engine: _answers(engine, *SETTINGS))
    assert {key: answers[key] for key in EXPECTED} == EXPECTED
    assert set(answers["user"].split()) == {"1000", "50", "5"}


def test_defaults(engine, same):
    """What a container sees that was told nothing is what it sees with runc."""
    keys = ("capabilities", "privileges", "seccomp", "score", "masked", "devices", "mounts",
            "umask", "user", "directory", "shm", "sys", "fds")  # fmt: skip
    asked = {key: QUESTIONS[key] for key in keys}
    answers = same(engine, lambda engine: _answers(engine, questions=asked))
    assert answers["seccomp"] == "2"


def test_unconfined(engine):
    """unconfined lifts the filter; --cap-add adds a capability."""
    keys = ("seccomp", "capabilities")
    asked = {key: QUESTIONS[key] for key in keys}
    flags = ("--security-opt=seccomp=unconfined", "--cap-add=SYS_ADMIN")
    answers = _answers(engine, *flags, questions=asked)
    assert answers["seccomp"] == "0"
    assert int(answers["capabilities"].split()[-1], 16) & 1 << 21  # CAP_SYS_ADMIN


def test_seccomp_profile(engine, tmp_path):
    """A profile of one's own refuses what it names, with the error it says."""
    profile = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": ["SCMP_ARCH_X86_64"],
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28}],
    }
    path = tmp_path / "profile.json"
    path.write_text(json.dumps(profile))
    result = engine(*RUN, f"--security-opt=seccomp={path}", IMAGE, "mkdir", "/new")
    assert (result.code, "No space left" in result.err) == (1, True)


def test_environment_from_a_file(engine, tmp_path):
    """--env-file gives variables; what -e says goes before it."""
    path = tmp_path / "env"
    path.write_text("A=file\nB=two words\n# no\n")
    words = ("--env-file", str(path), "-e", "A=flag", IMAGE, "sh", "-c", "echo $A-$B")
    assert engine.ok(*RUN, *words) == "flag-two words"


def test_users(engine):
    """Names and numbers, known and unknown to the image; an unknown name is refused."""
    for user, expected in (("ann", "1000 1000"), ("12345", "12345 0"), ("ann:staff", "1000 50")):
        out = engine.ok(*RUN, "-u", user, IMAGE, "sh", "-c", "id -u; id -g")
        assert out.split() == expected.split()
    assert engine(*RUN, "-u", "nobody-knows", IMAGE, "true").code in (125, 126)


def test_refused_settings_leave_nothing(engine, same):
    """What the runtime refuses gives the engine's code and no container remains."""
    refused = (
        ("--workdir=/etc/passwd",),
        ("--sysctl=kernel.no_such_thing=1",),
        ("--device=/dev/null:/proc/x",),
    )
    codes = same(engine, lambda e: [e(*RUN, *flags, IMAGE, "true").code for flags in refused])
    assert 0 not in codes
    assert engine.ok("ps", "-aq") == ""
