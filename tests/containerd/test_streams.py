"""Streams over CRI: exec, attach, port-forward; logs."""

from __future__ import annotations

import os
import re

from support.cri import until
from support.streaming import STDERR, Stream


def execute(containerd, pod, name: str, *command: str, **how: bool) -> Stream:
    """A stream to a command that is added."""
    how = {"stdin": True, "stdout": True, "stderr": not how.get("tty")} | how
    url = pod.cri("Exec", container_id=pod.ids[name], cmd=list(command), **how).url
    return Stream(containerd.place, url)


def attach(containerd, pod, name: str, **how: bool) -> Stream:
    """A stream to a container's first process."""
    how = {"stdin": True, "stdout": True, "stderr": not how.get("tty")} | how
    return Stream(containerd.place, pod.cri("Attach", container_id=pod.ids[name], **how).url)


def test_exec(containerd, pod):
    """Input, both outputs and the code of a command pass."""
    words = "read x; echo out-$x; echo err-$x >&2; exit 21"
    with execute(containerd, pod, "box", "sh", "-c", words) as stream:
        stream.send(b"given\n")
        assert stream.code() == 21
        assert (stream.seen[1], stream.seen[STDERR]) == (b"out-given\n", b"err-given\n")
    with execute(containerd, pod, "box", "true", stdin=False) as stream:
        assert stream.code() == 0


def test_exec_of_much(containerd, pod):
    """A lot of output arrives whole and in order."""
    words = "yes abcdefghi | head -c 3000000"
    with execute(containerd, pod, "box", "sh", "-c", words, stdin=False) as stream:
        assert stream.rest() == b"abcdefghi\n" * 300_000


def test_exec_with_a_terminal(containerd, pod):
    """A terminal has a size that follows, and signals are typed."""
    with execute(containerd, pod, "box", "sh", tty=True) as stream:
        stream.resize(90, 33)
        stream.expect(b"# ")
        stream.send(b'until stty size | grep -q "33 90"; do :; done; echo si""zed\r')
        stream.expect(b"sized")
        stream.resize(71, 22)
        stream.send(b'until stty size | grep -q "22 71"; do :; done; echo si""zed\r')
        stream.expect(b"sized")
        stream.send(b'sleep 1003; echo co""de-$?\r')
        until(lambda: "sleep 1003" in pod.sh("box", "ps"))
        stream.send(b"\x03")
        stream.send(b'echo co""de-$?\r')
        stream.expect(b"code-130")
        stream.send(b"exit 3\r")
        assert stream.code() == 3


def test_client_that_goes_away(containerd, pod):
    """A client that leaves does not end the container, nor hinder the next."""
    with execute(containerd, pod, "box", "cat") as stream:
        stream.send(b"x")
        stream.expect(b"x")
    assert pod.sh("box", "echo well") == "well"
    until(lambda: not re.search(r" cat$", pod.sh("box", "ps"), re.MULTILINE))


def test_attach(containerd, pod):
    """Who attaches reads and writes the container's own streams, one after another."""
    words = "while read x; do echo out-$x; echo err-$x >&2; done; echo over"
    pod.up("talks", "sh", "-c", words, stdin=True)
    for word in (b"one", b"two"):
        with attach(containerd, pod, "talks") as stream:
            stream.send(word + b"\n")
            stream.expect(b"out-" + word)
            stream.expect(b"err-" + word, STDERR)
    lines = pod.logged("talks", "err-two")
    assert {line.text for line in lines} == {"out-one", "err-one", "out-two", "err-two"}
    pod.remove("talks")


def test_attach_with_a_terminal(containerd, pod):
    """A container with a terminal is typed to, and its end ends the stream."""
    pod.up("shell", "sh", stdin=True, tty=True)
    with attach(containerd, pod, "shell", tty=True) as stream:
        stream.resize(88, 44)
        stream.send(b'until stty size | grep -q "44 88"; do :; done; echo si""zed\r')
        stream.expect(b"sized")
        stream.send(b"exit 5\r")
        stream.rest()
    assert pod.ended("shell").exit_code == 5
    pod.remove("shell")


def test_input_once(containerd, pod):
    """Input that is given once ends with who gave it."""
    pod.up("once", "sh", "-c", "cat; echo over", stdin=True, stdin_once=True)
    with attach(containerd, pod, "once") as stream:
        stream.send(b"given\n")
        stream.expect(b"given")
    assert pod.ended("once").exit_code == 0
    assert [line.text for line in pod.log("once")] == ["given", "over"]
    pod.remove("once")


def test_port_forward(containerd, pod):
    """Ports are forwarded into the pod, also to what listens on its loopback alone."""
    words = "mkdir /www; echo page >/www/index.html; exec httpd -f -h /www -p "
    ports = {"any": "0.0.0.0:8100", "own": "127.0.0.1:8101"}
    for name, address in ports.items():
        pod.up(name, "sh", "-c", words + address)
        wanted = int(address.split(":")[1])
        until(
            lambda n=name, w=wanted: pod.exec(n, "wget", "-qO-", f"http://127.0.0.1:{w}").code == 0
        )
        url = pod.cri("PortForward", pod_sandbox_id=pod.id, port=[wanted]).url
        with Stream(containerd.place, url) as stream:
            assert stream.ports(1) == [wanted]
            stream.send(b"GET / HTTP/1.0\r\n\r\n", 0)
            stream.expect(b"\r\n\r\npage\n", 0)
        pod.remove(name)


def test_log(pod):
    """Lines have a time, a stream and a tag; a line that is too long comes in parts."""
    pod.up("writes", "sh", "-c", "echo one; sleep 0.2; echo two >&2; printf part; exit 3")
    pod.ended("writes")
    lines = pod.logged("writes", "part")
    assert [(l.stream, l.whole, l.text) for l in lines] == [
        ("stdout", True, "one"), ("stderr", True, "two"), ("stdout", False, "part"),
    ]  # fmt: skip
    assert all(
        re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+(Z|[+-]\d\d:\d\d)", l.time) for l in lines
    )
    assert [l.time for l in lines] == sorted(l.time for l in lines)
    assert pod.status("writes").log_path == pod.log_path("writes")
    pod.remove("writes")
    pod.up("long", "sh", "-c", "head -c 40000 /dev/zero | tr '\\0' x; echo; echo end")
    lines = pod.logged("long", "end")[:-1]
    assert sum(len(line.text) for line in lines) == 40000
    assert [line.whole for line in lines] == [False] * (len(lines) - 1) + [True]
    pod.ended("long")
    pod.remove("long")


def test_log_is_reopened(pod):
    """A log that was moved away is begun anew when asked, and no line is lost."""
    pod.up("ticks", "sh", "-c", "n=0; while :; do n=$((n+1)); echo tick-$n-; sleep 0.02; done")
    pod.logged("ticks", "tick-3-")
    os.rename(pod.log_path("ticks"), pod.log_path("old"))
    pod.cri("ReopenContainerLog", container_id=pod.ids["ticks"])
    until(lambda: len(pod.log("ticks")) > 3)
    pod.remove("ticks")
    numbers = [int(l.text.split("-")[1]) for name in ("old", "ticks") for l in pod.log(name)]
    assert numbers == list(range(1, len(numbers) + 1))
