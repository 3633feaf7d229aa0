"""What a process may do: capabilities, seccomp, devices."""

import errno

import pytest

from conformance.bundle import config
from conformance.facts import capabilities, status

CHOWN, KILL, NET_RAW, SYS_CHROOT, BIND = 0, 5, 13, 18, 10
SETS = {
    "bounding": ["CAP_CHOWN", "CAP_KILL", "CAP_NET_RAW", "CAP_SYS_CHROOT", "CAP_NET_BIND_SERVICE"],
    "permitted": ["CAP_CHOWN", "CAP_KILL", "CAP_NET_RAW", "CAP_NET_BIND_SERVICE"],
    "effective": ["CAP_CHOWN", "CAP_KILL", "CAP_NET_BIND_SERVICE"],
    "inheritable": ["CAP_KILL", "CAP_NET_RAW", "CAP_NET_BIND_SERVICE"],
    "ambient": ["CAP_NET_BIND_SERVICE"],
}


@pytest.fixture(scope="module")
def user(suite):
    """A user other than root with all five sets."""
    spec = config(process={"user": {"uid": 1000, "gid": 1000}, "capabilities": SETS})
    return suite.ask(spec, bind="busybox timeout 1 nc -l -p 80; echo $?")


@pytest.fixture(scope="module")
def none(suite):
    """Root without any capability."""
    empty: dict = {name: [] for name in SETS}
    return suite.ask(
        config(process={"capabilities": empty}),
        chown="touch /tmp/x && chown 1:1 /tmp/x", chroot="busybox chroot / true",
        name="hostname other", mount="mount -t tmpfs x /tmp", mknod="mknod /tmp/n c 1 3",
        kill="kill -0 1",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("CapBnd", {CHOWN, KILL, NET_RAW, SYS_CHROOT, BIND}),
        ("CapInh", {KILL, NET_RAW, BIND}),
        ("CapAmb", {BIND}),
        ("CapPrm", {BIND}),  # after execve a user has what is ambient
        ("CapEff", {BIND}),
    ],
)
def test_capability_set_of_a_user(user, kind, expected):
    """Each set of a user's program is what the config and the rules of execve make it."""
    assert capabilities(user.facts, kind) == expected


@pytest.mark.parametrize("kind", ["CapBnd", "CapInh", "CapAmb", "CapPrm", "CapEff"])
def test_no_capabilities(none, kind):
    """Empty sets are empty, for root as well."""
    assert capabilities(none.facts, kind) == set()


@pytest.mark.parametrize("act", ["chown", "chroot", "name", "mount", "mknod"])
def test_root_without_capabilities_may_not(none, act):
    """What needs a capability fails without it."""
    answer = getattr(none, act)
    assert answer.code != 0
    assert "not permitted" in answer.out or "denied" in answer.out


def test_ambient_without_inheritable_is_passed_over(suite):
    """What cannot be ambient is not, and the container starts: ``runc spec`` writes such sets."""
    sets = {n: ["CAP_KILL"] for n in ("bounding", "permitted", "effective", "ambient")}
    container = suite.ask(config(process={"capabilities": sets}))
    assert capabilities(container.facts, "CapAmb") == set()
    assert capabilities(container.facts, "CapPrm") == {KILL}


def test_root_has_what_is_bounded(suite):
    """Root's program has what the config gives, and nothing of the runtime's."""
    some = {n: ["CAP_CHOWN", "CAP_KILL"] for n in ("bounding", "permitted", "effective")}
    found = suite.ask(config(process={"capabilities": some}), chown="chown 1:1 /tmp && echo done")
    assert capabilities(found.facts, "CapBnd") == {CHOWN, KILL}
    assert capabilities(found.facts, "CapEff") == {CHOWN, KILL}
    assert found.chown.out == "done\n"


def test_unknown_capability_is_ignored(suite):
    """A name that the runtime does not know is left out, the rest is given."""
    some = {n: ["CAP_CHOWN", "CAP_TELEPORT"] for n in ("bounding", "permitted", "effective")}
    found = suite.ask(config(process={"capabilities": some}))
    assert capabilities(found.facts, "CapEff") == {CHOWN}


def rule(*names: str, action: str = "SCMP_ACT_ERRNO", **more) -> dict:
    """A rule of a filter."""
    return {"names": list(names), "action": action} | more


FILTER = {
    "defaultAction": "SCMP_ACT_ALLOW",
    "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"],
    "syscalls": [
        rule("getppid"),
        rule("setpriority", "nosuchcall", errnoRet=errno.ENOTNAM),
        rule("keyctl", action="SCMP_ACT_KILL_PROCESS"),
        rule("setdomainname", action="SCMP_ACT_TRAP"),
        rule("umount2", action="SCMP_ACT_LOG"),
        rule("getpgid", errnoRet=41,
             args=[{"index": 0, "value": 7, "op": "SCMP_CMP_EQ"}]),
        rule("dup3", errnoRet=42,
             args=[{"index": 0, "value": 100, "op": "SCMP_CMP_GT"}]),
        rule("lseek", errnoRet=43,
             args=[{"index": 1, "value": 0xF0, "valueTwo": 0x50, "op": "SCMP_CMP_MASKED_EQ"}]),
        rule("socket", errnoRet=44,
             args=[{"index": 0, "value": 16, "op": "SCMP_CMP_EQ"},
                   {"index": 2, "value": 9, "op": "SCMP_CMP_EQ"}]),
        rule("mkdirat", action="SCMP_ACT_KILL"),
    ],
}  # fmt: skip
CALLS = {
    "plain": "probe call getppid",
    "number": "probe call setpriority 0 0 0",
    "process": "probe call keyctl 0 0 0; exit $?",
    "thread": "probe call mkdirat -100 s:/tmp/x 0755; exit $?",
    "trap": "probe call setdomainname s:x 1; exit $?",
    "log": "probe call umount2 s:/nowhere 0",
    "equal": "probe call getpgid 7; probe call getpgid 1",
    "greater": "probe call dup3 101 102 0; probe call dup3 99 102 0",
    "masked": "probe call lseek 99 0x55 0; probe call lseek 99 0x45 0",
    "both": "probe call socket 16 3 9; probe call socket 16 3 0",
    "rest": "probe call sethostname s:x 1",
    "compat": "probe compat",
}


@pytest.fixture(scope="module")
def filtered(suite):
    """A container with a filter of everything."""
    return suite.ask(config(linux={"seccomp": FILTER}), **CALLS)


def test_seccomp_is_on(filtered):
    """The kernel says that a filter is there."""
    assert status(filtered.facts)["Seccomp"] == "2"


def test_seccomp_is_off(none):
    """Without one in the config there is none."""
    assert status(none.facts)["Seccomp"] == "0"


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        ("plain", [errno.EPERM]),
        ("number", [errno.ENOTNAM]),
        ("log", [errno.ENOENT]),
        ("equal", [41, 0]),
        ("greater", [42, errno.EBADF]),
        ("masked", [43, errno.EBADF]),
        ("both", [44, 0]),
        ("rest", [errno.EPERM]),
    ],
)
def test_seccomp_answer(filtered, call, expected):
    """A rule gives its error for its calls and arguments, and for no others."""
    found = [int(line.split()[1]) for line in getattr(filtered, call).out.splitlines()]
    assert found == expected


@pytest.mark.parametrize("call", ["process", "thread", "trap"])
def test_seccomp_kills(filtered, call):
    """Actions that end the caller do so by SIGSYS."""
    assert getattr(filtered, call).code == 128 + 31, getattr(filtered, call).out


def test_seccomp_other_architecture(filtered):
    """A filter holds for the 32-bit calls it lists too, where the kernel has them."""
    answer = filtered.compat
    if answer.code in (139, 2):
        pytest.skip("the kernel has no 32-bit calls")
    assert answer.out == f"-1 {errno.EPERM}\n"


def test_seccomp_allow_list(suite):
    """An engine's way: all is an error of its own but what is listed."""
    allowed = """
        access arch_prctl brk capget capset chdir clone clone3 close dup2 dup3 epoll_create1
        epoll_ctl epoll_pwait execve exit exit_group faccessat faccessat2 fchown fcntl fstat
        fstatfs futex getcwd getdents64 getegid geteuid getgid getpgrp getpid getppid getrandom
        getrlimit gettid getuid ioctl keyctl lseek madvise mmap mprotect munmap nanosleep
        newfstatat openat pipe2 poll prctl pread64 prlimit64 read readlinkat readlink
        rseq rt_sigaction rt_sigprocmask rt_sigreturn sched_getaffinity sched_yield set_robust_list
        set_tid_address setgid setgroups setpgid setsid setuid sigaltstack stat statfs statx tgkill
        umask uname wait4 write writev close_range setresuid setresgid open lstat seccomp
        """.split()  # noqa: SIM905
    spec = config("sh", "-c", "probe call unshare 0; probe call getppid; echo still here", linux={
        "seccomp": {
            "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 77,
            "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_AARCH64"],
            "syscalls": [rule(*allowed, action="SCMP_ACT_ALLOW")],
        },
    })  # fmt: skip
    lines = suite.done(spec).out.splitlines()
    assert lines[0] == "-1 77"
    assert lines[1].endswith(" 0")
    assert lines[2] == "still here"


@pytest.mark.needs("seccomp flags")
def test_seccomp_flags_are_accepted(suite):
    """The flags of the specification are accepted."""
    flags = ["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW"]
    spec = config("probe", "call", "getppid", linux={"seccomp": FILTER | {"flags": flags}})
    assert suite.done(spec).out == f"-1 {errno.EPERM}\n"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"defaultAction": "SCMP_ACT_SHRUG"}, ("SCMP_ACT_SHRUG", "action")),
        ({"architectures": ["SCMP_ARCH_ABACUS"]}, ("ABACUS", "arch")),
        ({"flags": ["SECCOMP_FILTER_FLAG_MOOD"]}, ("MOOD", "flag")),
        ({"defaultAction": "SCMP_ACT_NOTIFY"}, ("notify",)),
        ({"syscalls": [rule("getppid", args=[{"index": 9, "value": 1, "op": "SCMP_CMP_EQ"}])]},
         ("seccomp", "arg", "index")),
    ],
    ids=["action", "architecture", "flag", "notify-by-default", "argument"],
)  # fmt: skip
def test_broken_filter_is_refused(suite, change, words):
    """A filter that cannot be is an error."""
    suite.refused(config("true", linux={"seccomp": FILTER | change})).refused(*words)


def test_notify_without_a_listener_is_refused(suite):
    """A rule that asks somebody needs somebody to ask."""
    rules = {"syscalls": [rule("getppid", action="SCMP_ACT_NOTIFY")]}
    suite.refused(config("true", linux={"seccomp": FILTER | rules})).refused(
        "listenerPath", "notify"
    )


DEVICES = [
    {"type": "c", "path": "/dev/extra", "major": 1, "minor": 5, "fileMode": 0o640,
     "uid": 1000, "gid": 50},
    {"type": "c", "path": "/dev/deep/down/null", "major": 1, "minor": 3},
    {"type": "b", "path": "/dev/block", "major": 7, "minor": 200, "fileMode": 0o600},
    {"type": "p", "path": "/dev/pipe", "fileMode": 0o666},
    {"type": "c", "path": "/dev/ptmx", "major": 5, "minor": 2, "fileMode": 0o666},
]  # fmt: skip
RULES = [
    {"allow": False, "access": "rwmx"},  # a letter that is none
    {"allow": True, "type": "c", "major": 1, "minor": 5, "access": "rw"},
    {"allow": True, "type": "c", "major": 10, "minor": 237, "access": "rm"},  # loop-control
    {"allow": True, "type": "c", "access": "m"},
]
DEFAULTS = {
    "null": (1, 3), "zero": (1, 5), "full": (1, 7), "random": (1, 8), "urandom": (1, 9),
    "tty": (5, 0),
}  # fmt: skip


@pytest.fixture(scope="module")
def equipped(suite):
    """A container with more devices, and rules."""
    spec = config(linux={"devices": DEVICES, "resources": {"devices": RULES}})
    form = "stat -c '%n %F %t %T %a %u %g'"
    return suite.ask(
        spec,
        nodes=f"{form} /dev/null /dev/zero /dev/full /dev/random /dev/urandom /dev/tty",
        extra=f"{form} /dev/extra /dev/deep/down/null /dev/block /dev/pipe",
        links="for n in fd stdin stdout stderr ptmx; do readlink /dev/$n; done",
        work="echo x >/dev/null; head -c 4 /dev/zero | od -An -tx1; head -c 9 /dev/urandom | wc -c",
        full="echo x >/dev/full",
        zero="head -c 3 /dev/extra | wc -c",
        denied="mknod /tmp/mem c 1 1 && head -c 1 /tmp/mem",
        denied_block="head -c 1 /dev/block",
        read="mknod /tmp/control c 10 237 && : </tmp/control",
        write=": >>/tmp/control",
        others="ls /dev | grep -v -x -e core -e deep -e extra -e block -e pipe",
    )


@pytest.mark.parametrize("name", sorted(DEFAULTS))
def test_default_device(equipped, name):
    """Each default device is there, with its numbers, for everyone."""
    rows = {row.split()[0]: row.split()[1:] for row in equipped.nodes.out.splitlines()}
    major, minor = DEFAULTS[name]
    assert rows[f"/dev/{name}"] == [
        "character", "special", "file", f"{major:x}", f"{minor:x}", "666", "0", "0"
    ]  # fmt: skip


def test_default_devices_work(equipped):
    """They do what they are for, whatever the rules are."""
    assert equipped.work.out.split() == ["00", "00", "00", "00", "9"]
    assert "No space left" in equipped.full.out


def test_relative_path_of_a_device(suite):
    """A device's path without its first slash begins at the root, and does not lead out of it."""
    devices = [
        {"type": "c", "path": path, "major": 1, "minor": 5} for path in ("dev/slashless", "../up")
    ]
    found = suite.ask(
        config(linux={"devices": devices}), nodes="stat -c '%n %t %T' /dev/slashless /up"
    )
    assert found.nodes.out.splitlines() == ["/dev/slashless 1 5", "/up 1 5"]


def test_device_in_the_place_of_another(suite):
    """What is listed comes before what every container has; a file that is there is kept."""
    devices = [
        {"type": "c", "path": "/dev/tty", "major": 1, "minor": 5, "fileMode": 0o640, "gid": 50},
        {"type": "c", "path": "/etc/passwd", "major": 1, "minor": 5},
    ]
    found = suite.ask(
        config(linux={"devices": devices}), nodes="stat -c '%t %T %a %g' /dev/tty",
        kept="stat -c %F /etc/passwd",
    )  # fmt: skip
    assert found.nodes.out == "1 5 640 50\n"
    assert found.kept.out == "regular file\n"


def test_default_links(equipped):
    """/dev/fd and the standard streams lead into /proc; /dev/ptmx to the container's own."""
    expected = ["/proc/self/fd", "/proc/self/fd/0", "/proc/self/fd/1", "/proc/self/fd/2"]
    assert equipped.links.out.split() == [*expected, "pts/ptmx"]  # whatever node is asked for


def test_no_other_devices(equipped):
    """Nothing else of the host's, or the guest's, is in /dev."""
    usual = {"fd", "full", "mqueue", "null", "ptmx", "pts", "random", "shm", "stderr", "stdin",
             "stdout", "tty", "urandom", "zero", "console"}  # fmt: skip
    assert set(equipped.others.out.split()) <= usual


def test_additional_device(equipped):
    """A device of the config has its numbers, mode and owner."""
    rows = equipped.extra.out.splitlines()
    assert rows[0] == "/dev/extra character special file 1 5 640 1000 50"


def test_device_in_a_directory(equipped):
    """Directories on its way are made."""
    assert equipped.extra.out.splitlines()[1].startswith("/dev/deep/down/null character")


def test_block_device(equipped):
    """A block device too."""
    assert equipped.extra.out.splitlines()[2].startswith("/dev/block block special file 7 c8 600")


def test_fifo(equipped):
    """A named pipe too."""
    assert equipped.extra.out.splitlines()[3].startswith("/dev/pipe fifo 0 0 666")


def test_allowed_device_works(equipped):
    """A device that the rules allow can be used."""
    assert equipped.zero.out == "3\n"


def test_denied_device_is_denied(equipped):
    """A device that no rule allows can be made, as a rule says, and not opened."""
    assert "not permitted" in equipped.denied.out


def test_denied_block_device_is_denied(equipped):
    """Listing a device does not allow it: the rules do."""
    assert "not permitted" in equipped.denied_block.out


def test_access_of_a_rule(equipped):
    """A rule that allows to read does not allow to write; the kernel need not have the device."""
    assert "not permitted" not in equipped.read.out
    assert "not permitted" in equipped.write.out


def test_unknown_kind_of_device_is_refused(suite):
    """A kind that does not exist is an error."""
    wrong = [{"type": "z", "path": "/dev/z", "major": 1, "minor": 3}]
    suite.refused(config("true", linux={"devices": wrong})).refused("device", "type")
