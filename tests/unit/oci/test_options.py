"""Command line values in Docker's syntax."""

import pytest

from kata.errors import InvalidInput
from kata.oci import signals
from kata.oci.options import (
    UNLIMITED,
    Rlimit,
    Security,
    Tmpfs,
    Volume,
    cpus,
    env_file,
    environment,
    security,
    size,
    sysctl,
    tmpfs,
    ulimit,
    volume,
)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", 0),
        ("4096", 4096),
        ("512m", 512 << 20),
        ("512M", 512 << 20),
        ("1g", 1 << 30),
        ("1.5g", 3 << 29),
        ("1GiB", 1 << 30),
        ("1gb", 1 << 30),
        ("64 k", 64 << 10),
        ("10b", 10),
        ("2t", 2 << 40),
    ],
)
def test_sizes(text, value):
    """Sizes are powers of 1024, in any of Docker's spellings."""
    assert size(text) == value


@pytest.mark.parametrize(
    "text", ["", "m", "-1", "1x", "1e9", "0x10", "1.g", ".5g", "1mm", "\u0661", "1 2"]
)
def test_bad_sizes(text):
    """What is no size is refused with the text."""
    with pytest.raises(InvalidInput, match="invalid size") as caught:
        size(text)
    assert f'"{text}"' in str(caught.value)


def test_cpus():
    """Processors are counted in billionths; less than a hundredth is refused."""
    assert [cpus(t) for t in ("1", "0.5", "1.25", "0.01")] == [
        1_000_000_000,
        500_000_000,
        1_250_000_000,
        10_000_000,
    ]
    for text in ("0", "0.001", "-1", "two", ""):
        with pytest.raises(InvalidInput, match="cpus"):
            cpus(text)


def test_ulimits():
    """A limit is soft and hard; one number means both, -1 none."""
    assert ulimit("nofile=1024:2048") == Rlimit("nofile", 1024, 2048)
    assert ulimit("core=0") == Rlimit("core", 0, 0)
    assert ulimit("memlock=-1") == Rlimit("memlock", UNLIMITED, UNLIMITED)
    assert ulimit("nproc=5:-1") == Rlimit("nproc", 5, UNLIMITED)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("nofile", "must be NAME=SOFT"),
        ("nofile=", "must be NAME=SOFT"),
        ("files=1", 'there is no "files"'),
        ("nofile=a", '"a" is no number'),
        ("nofile=1:b", '"b" is no number'),
        ("nofile=2:1", "soft limit must be less than or equal to hard limit: 2 > 1"),
        ("nofile=-1:1", "soft limit must be less"),
        ("nofile=99999999999999999999", "is no number"),
    ],
)
def test_bad_ulimits(text, why):
    """Each broken rule of a limit is named."""
    with pytest.raises(InvalidInput, match=why):
        ulimit(text)


def test_volumes():
    """A volume is source and destination, normalised, with its options."""
    assert volume("/a:/b", "/d") == Volume("/a", "/b")
    assert volume("/a/:/b/../c/:ro", "/d") == Volume("/a", "/c", readonly=True)
    assert volume("./x:/b:rw,rslave,z", "/d") == Volume("/d/x", "/b", propagation="rslave")
    assert volume("..:/b", "/d/e").source == "/d"
    assert volume("//a:/b", "/").source == "/a"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("/a", "must be SOURCE:DESTINATION"),
        ("/a:", "must be SOURCE:DESTINATION"),
        ("/a:/b:ro:x", "must be SOURCE:DESTINATION"),
        ("data:/b", "there are no named volumes"),
        ("/a:b", "the destination must be absolute"),
        ("/a:/", "the destination cannot be /"),
        ("/a:/b/..", "the destination cannot be /"),
        ("/a:/b:readonly", 'unknown option "readonly"'),
        ("/a:/b:ro,rw", "contradict"),
        ("/a:/b:slave,shared", "contradict"),
    ],
)
def test_bad_volumes(text, why):
    """Each broken rule of a volume is named."""
    with pytest.raises(InvalidInput, match=why):
        volume(text, "/d")


def test_tmpfs():
    """Given options go over Docker's own, the later one wins."""
    default = ("noexec", "nosuid", "nodev", "rprivate")
    assert tmpfs("/x") == Tmpfs("/x", default)
    assert tmpfs("/x:size=64m,exec,mode=1777") == Tmpfs(
        "/x", ("nosuid", "nodev", "rprivate", "size=67108864", "exec", "mode=1777")
    )
    assert tmpfs("/x:size=1k,size=50%,ro,rw").options == (*default, "size=50%", "rw")
    assert tmpfs("/x:slave").options == ("noexec", "nosuid", "nodev", "slave")
    for text in ("x", "/", "/x:color=red", "/x:bind", "/x:size=", "/x:size=1y"):
        with pytest.raises(InvalidInput):
            tmpfs(text)


def test_environment():
    """A bare name takes the caller's value, and stays bare where there is none."""
    given = ("A=1", "B", "C", "D=", "E=x=y")
    assert environment(given, {"B": "two"}) == ("A=1", "B=two", "C", "D=", "E=x=y")
    for bad in ("", "=x", "A=\0"):
        with pytest.raises(InvalidInput):
            environment((bad,), {})


def test_env_files():
    """Docker's rules: comments, leading space, quotes as they are, bare names looked up."""
    text = b"\xef\xbb\xbfA=1\n# c\n\n  B= two \r\n\tC='x'\nD\nE\nF=a#b\n"
    assert env_file(text, "f", {"D": "env"}) == ("A=1", "B= two ", "C='x'", "D=env", "F=a#b")
    for data, why in (
        (b"A B=1", 'variable "A B" contains whitespaces'),
        (b"A =1", 'variable "A " contains whitespaces'),
        (b"=1", 'no variable name on line "=1"'),
        (b"A=1\n\xff=2", "invalid utf8 bytes at line 2"),
    ):
        with pytest.raises(InvalidInput, match=why):
            env_file(data, "f", {})


def test_sysctls_and_security():
    """Kernel parameters and security options are parsed; what is unknown is refused."""
    assert sysctl("net.ipv4.ip_forward=1") == ("net.ipv4.ip_forward", "1")
    for text in ("a", "=1", "a="):
        with pytest.raises(InvalidInput):
            sysctl(text)
    assert security((), "/w") == Security()
    unconfined = Security("unconfined", True)
    assert security(("seccomp=unconfined", "no-new-privileges"), "/w") == unconfined
    assert security(("seccomp=/p.json", "no-new-privileges:false"), "/w") == Security("/p.json")
    assert security(("seccomp=s/../p.json",), "/w") == Security("/w/p.json")
    assert security(("seccomp=builtin", "no-new-privileges=true"), "/w") == Security("", True)
    assert security(("apparmor=unconfined", "label=disable"), "/w") == Security()
    for text in (
        "seccomp",
        "seccomp=",
        "apparmor=x",
        "systempaths=unconfined",
        "no-new-privileges=2",
    ):
        with pytest.raises(InvalidInput, match="invalid security option"):
            security((text,), "/w")


def test_signals():
    """Signals by number and name, with or without SIG, real-time ones relative to either end."""
    import signal

    for member in signal.Signals:
        assert signals.number(member.name) == member.value
        assert signals.number(str(member.value)) == member.value
    assert [signals.number(t) for t in ("term", "sigterm", "RTMIN+3", "RTMAX-1")] == [
        15,
        15,
        37,
        63,
    ]
    assert (signals.name(9), signals.name(34), signals.name(37), signals.name(99)) == (
        "KILL", "RTMIN", "RTMIN+3", "99",
    )  # fmt: skip
    for text in ("", "0", "65", "-9", "SIGFOO", "RTMIN+31", "RTMIN-1", "9x"):
        with pytest.raises(InvalidInput, match="invalid signal"):
            signals.number(text)
