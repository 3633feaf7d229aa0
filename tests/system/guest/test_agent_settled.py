"""Containers that were settled before their program was known, by the real agent."""

from __future__ import annotations

import json
import os

import pytest

from kata import errors
from kata.wire import agent_api as api

FILES = ["/etc/hostname", "/etc/hosts"]
CONTENTS = [b"box\n", b"127.0.0.1 box\n"]
FACTS = (
    "grep -E '^(Cap|Seccomp|NoNew|Groups|Uid|Gid|Umask)' /proc/self/status; id; pwd; umask;"
    "ulimit -n; cat /proc/self/cgroup; cut -d' ' -f5,6 /proc/self/mountinfo | sort;"
    "cat /etc/hosts /etc/hostname; stat -c '%a %u' /etc/hosts; echo $HOME;"
    "ls /proc/self/fd | wc -l; cat /proc/self/oom_score_adj; echo $$"
)


def asked(*words: str, **more) -> api.CreateContainerRequest:
    """What is sent of a container that is settled."""
    env = b"PATH=/bin\0A=b=c\0"
    args = b"".join(word.encode() + b"\0" for word in words)
    files = [api.File(path=p, content=c) for p, c in zip(FILES, CONTENTS, strict=True)]
    wanted = {"stdin": False, "stdout": True, "stderr": True, "files": files} | more
    return api.CreateContainerRequest(
        container_id="run", program=api.Program(args=args, env=env), **wanted
    )


def settle(guest, spec: dict, seccomp: api.Seccomp | None = None) -> None:
    """Prepare a container up to its program."""
    guest.call("Prepare", api.PrepareRequest())
    text = json.dumps(spec).encode()
    guest.call("Prepare", api.PrepareRequest(spec=text, files=FILES, seccomp=seccomp))


def run(guest, request: api.CreateContainerRequest, data: bytes = b"") -> tuple[bytes, int]:
    """Run a settled container to its end: output and exit code."""
    guest.call("CreateContainer", request)
    stream = guest.output("run")
    guest.start("run")
    if request.stdin:
        guest.input("run", data)
    parts = []
    while part := stream.read():
        parts.append(part)
        stream.consumed(len(part))
    end = guest.wait("run")
    guest.delete("run")
    return b"".join(parts), end.exit_code


def allowing(*numbers: int) -> api.Seccomp:
    """A filter that lets everything pass but these calls, which it refuses with EPERM."""
    code = [(0x20, 0, 0, 0)]
    for n in numbers:
        code += [(0x15, 0, 1, n), (0x06, 0, 0, 0x00050001)]
    code.append((0x06, 0, 0, 0x7FFF0000))
    bpf = b"".join(
        c.to_bytes(2, "little") + bytes((t, f)) + k.to_bytes(4, "little") for c, t, f, k in code
    )
    return api.Seccomp(bpf=bpf)


@pytest.mark.parametrize(
    "process",
    [
        {},
        {"user": {"uid": 1000, "gid": 1000, "additionalGids": [5]}, "cwd": "/made/here"},
        {"noNewPrivileges": True, "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 64, "hard": 64}]},
        {"user": {"uid": 0, "gid": 0, "umask": 0o77}, "oomScoreAdj": 100},
    ],
    ids=["plain", "user", "no_new_privs", "umask"],
)
def test_a_settled_container_is_like_a_fresh_one(guest, process):
    """Its confinement, mounts, files and descriptors cannot be told from one made at once."""
    spec = guest.spec("sh", "-c", FACTS, process=process)
    seccomp = allowing(165)  # mount
    files = [api.File(path=p, content=c) for p, c in zip(FILES, CONTENTS, strict=True)]
    fresh = guest.run(spec=spec, seccomp=seccomp, files=files, stdin=False)
    settle(guest, spec, seccomp)
    out, code = run(guest, asked("sh", "-c", FACTS))
    assert (out.decode().splitlines(), code) == (fresh[0].decode().splitlines(), 0)
    assert b"Seccomp:\t2" in out


def test_words_reach_the_program_as_they_are(guest):
    """Arguments and environment are bytes; input is there if it was asked for."""
    settle(guest, guest.spec("cat"))
    request = asked("sh", "-c", 'cat; printf "%s|" "$@" "$A"', "x", "", "zwei drei", stdin=True)
    assert run(guest, request, b"in\n") == (b"in\n|zwei drei|b=c|", 0)


def test_it_waits_for_its_start(guest):
    """A created container has not run; one that cannot run says so when it is created."""
    root = guest.root()
    settle(guest, guest.spec("true", rootfs=root))
    guest.call("CreateContainer", asked("/bin/touch", "/mark"))
    assert not os.path.exists(f"{root}/mark")
    guest.start("run")
    assert guest.wait("run").exit_code == 0
    assert os.path.exists(f"{root}/mark")
    guest.delete("run")


@pytest.mark.parametrize(
    ("word", "error"),
    [
        ("nosuch", errors.CommandNotFound), ("/bin/nosuch", errors.CommandNotFound),
        ("/etc", errors.CommandNotExecutable),
    ],
)  # fmt: skip
@pytest.mark.parametrize("at_once", [False, True])
def test_a_program_that_is_not_there(guest, word, error, at_once):
    """It is refused in the usual words, let go already or not, and another container can be."""
    settle(guest, guest.spec("true"))
    with pytest.raises(error) as fresh:
        guest.run(word)
    settle(guest, guest.spec("true"))
    call = guest.client.start("CreateContainer", asked(word))
    if at_once:
        guest.client.start("StartContainer", api.ContainerRequest(container_id="run"))
    with pytest.raises(error) as caught:
        call.result(10)
    assert str(caught.value) == str(fresh.value)
    assert guest.run("echo", "on")[0] == b"on\n"


def test_only_what_was_settled_runs(guest):
    """Without a settled container, or with other files, there is a refusal; a spec makes anew."""
    with pytest.raises(errors.WrongState, match="waits for a program"):
        guest.call("CreateContainer", asked("true"))
    spec = guest.spec("echo", "it")
    settle(guest, spec)
    assert guest.run(spec=spec)[0] == b"it\n"
    settle(guest, guest.spec("true"))
    with pytest.raises(errors.InvalidInput, match="other files"):
        guest.call("CreateContainer", asked("true", files=[]))
    other = guest.spec("sh", "-c", "id -u", process={"user": {"uid": 7, "gid": 7}})
    assert guest.run(spec=other)[0] == b"7\n"
    with pytest.raises(errors.WrongState):
        guest.call("CreateContainer", asked("true"))
