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


def asked(*words: str, unhurried=False, path="/bin", **more) -> api.CreateContainerRequest:
    """What is sent of a container that is settled."""
    env = f"PATH={path}\0A=b=c\0".encode()
    args = b"".join(word.encode() + b"\0" for word in words)
    files = [api.File(path=p, content=c) for p, c in zip(FILES, CONTENTS, strict=True)]
    wanted = {"stdin": False, "stdout": True, "stderr": True, "files": files} | more
    return api.CreateContainerRequest(
        container_id="run", program=api.Program(args=args, env=env, unhurried=unhurried), **wanted
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


def gives_way(guest) -> bool:
    """Whether the agent, the process itself or its child in a namespace, interrupts nobody."""
    first = guest.agent.process.pid
    with open(f"/proc/{first}/task/{first}/children", encoding="ascii") as file:
        every = [first, *map(int, file.read().split())]
    return os.SCHED_BATCH in map(os.sched_getscheduler, every)


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
    assert not gives_way(guest)
    other = guest.spec("sh", "-c", "id -u", process={"user": {"uid": 7, "gid": 7}})
    assert guest.run(spec=other)[0] == b"7\n"
    assert gives_way(guest)
    with pytest.raises(errors.WrongState):
        guest.call("CreateContainer", asked("true"))


class Unhurried:
    """A settled container that is in no hurry to say that it runs, asked for in one write."""

    def __init__(self, guest, *words: str, **more) -> None:
        self._guest, client = guest, guest.client
        one = api.ContainerRequest(container_id="run")
        client.cork()
        self.created = client.start("CreateContainer", asked(*words, unhurried=True, **more))
        self.ended = client.start("Wait", api.ProcessRequest(container_id="run"))
        self.started = client.start("StartContainer", one)
        self.output = guest.output("run")
        client.uncork()

    def await_start(self):
        """Have it say whether it runs."""
        return self._guest.call("AwaitStart", api.ContainerRequest(container_id="run"), 10)


def test_output_comes_before_the_news_of_the_start(guest):
    """What an unhurried program writes makes the news of its start come; it goes on meanwhile."""
    settle(guest, guest.spec("true"))
    run = Unhurried(guest, "sh", "-c", "cat; echo out; cat", stdin=True)
    assert not run.created.ends_within(0.3)
    guest.input("run", b"in\n")
    assert run.output.read() == b"in\n"
    run.output.consumed(3)
    assert run.created.result(10).pid > 0
    run.started.result(10)
    assert run.output.read() == b"out\n"
    assert run.ended.result(10).exit_code == 0
    guest.delete("run")


def test_a_silent_program_says_that_it_runs_when_asked(guest):
    """Not before, and then at once; and it answers other calls from then on."""
    settle(guest, guest.spec("true"))
    run = Unhurried(guest, "sleep", "100")
    assert not run.created.ends_within(0.3)
    run.await_start()
    assert run.created.result(10).pid > 0
    run.started.result(10)
    one = api.ContainerRequest(container_id="run")
    assert "sleep" in str(guest.call("ListProcesses", one))
    guest.call("Signal", api.SignalRequest(container_id="run", signal=9))
    assert run.ended.result(10).exit_code == 137
    guest.delete("run")


def test_asked_together_with_the_rest_it_is_not_forgotten(guest):
    """The question may come in the same write: then it is as if nothing was unhurried."""
    settle(guest, guest.spec("true"))
    guest.client.cork()
    run = Unhurried(guest, "sleep", "100")
    asking = guest.client.start("AwaitStart", api.ContainerRequest(container_id="run"))
    guest.client.uncork()
    for call in (asking, run.created, run.started):
        call.result(10)
    guest.delete("run", force=True)


def test_a_silent_end_and_a_failure_are_told_at_once(guest):
    """Nobody has to ask for these."""
    settle(guest, guest.spec("true"))
    run = Unhurried(guest, "sh", "-c", "exit 3")
    assert run.ended.result(10).exit_code == 3
    run.created.result(10)
    run.started.result(10)
    assert run.output.read() == b""
    guest.delete("run")
    settle(guest, guest.spec("true"))
    run = Unhurried(guest, "nosuch")
    for call in (run.created, run.started):
        with pytest.raises(errors.CommandNotFound, match="nosuch"):
            call.result(10)
    assert guest.run("echo", "on")[0] == b"on\n"


def script(path: str, text: str, mode: int = 0o755) -> None:
    """A file in a container's root."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    os.chmod(path, mode)


@pytest.mark.parametrize("at_once", [False, True])
def test_the_first_that_can_be_executed_is(guest, at_once):
    """Of the places in PATH: what is no program there is passed over, what is a broken one not."""
    root = guest.root()
    for name in ("plain", "directory", "here", "there"):
        os.makedirs(f"{root}/{name}")
    script(f"{root}/plain/say", "#!/bin/sh\necho plain\n", 0o644)
    os.mkdir(f"{root}/directory/say")
    script(f"{root}/here/say", '#!/bin/sh\necho here "$0"\n')
    script(f"{root}/there/say", "#!/bin/sh\necho there\n")
    script(f"{root}/broken/say", "#!/no/interpreter\n")
    os.symlink("nowhere", f"{root}/bin/say")

    def said(path: str) -> tuple[bytes, int]:
        settle(guest, guest.spec("true", rootfs=root))
        request = asked("say", path=path)
        if not at_once:
            return run(guest, request)
        asking = Unhurried(guest, "say", path=path)
        asking.created.result(10)
        found = asking.output.read(), asking.ended.result(10).exit_code
        guest.delete("run")
        return found

    assert said("/none:/bin:/plain:/directory:/here:/there") == (b"here /here/say\n", 0)
    with pytest.raises(errors.CommandNotFound, match="/broken/say: no such file"):
        said("/broken:/there")
    if not at_once:  # it was made, and only its start failed
        guest.delete("run")
    with pytest.raises(errors.CommandNotFound, match=r"not found in \$PATH"):
        said("/none:/plain")
