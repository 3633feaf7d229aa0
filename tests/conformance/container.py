"""A container as an engine sees it: pipes for its output, a pid file, and a pid to reap.

The one rule: the caller is the child subreaper and takes the exit code of the pid file's process,
as conmon does; nothing else is known of that process.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import subprocess
import time
from itertools import count
from types import SimpleNamespace
from typing import ClassVar, Self

from conformance.bundle import Kit
from conformance.runtime import Result, Runtime, decoded, ended
from support import leaks

PATIENCE = 60  # seconds until something must have happened


def code_of(status: int) -> int:
    """A wait status as engines give it: the exit code, or 128 and the signal."""
    return os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status)


def reap(pid: int, patience: float = PATIENCE) -> int:
    """Wait for a process that came to us; its code."""
    watch = os.pidfd_open(pid)
    deadline = time.monotonic() + patience
    try:
        while not select.select([watch], [], [], 0.2)[0]:
            assert time.monotonic() < deadline, f"process {pid} goes on"
            reap_strays()  # a pid namespace ends only when all in it are reaped
    finally:
        os.close(watch)
    return code_of(os.waitpid(pid, 0)[1])


def reap_strays() -> None:
    """Reap dead children that no case waits for, as init would."""
    for child in leaks.children(os.getpid()):
        with contextlib.suppress(ChildProcessError):
            dead = os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if dead and child not in Process.awaited:
                os.waitpid(child, 0)


def eventually(question, what: str = "it", patience: float = PATIENCE):
    """Ask until the answer is true; the answer."""
    deadline = time.monotonic() + patience
    while not (answer := question()):
        assert time.monotonic() < deadline, f"{what} did not happen"
        time.sleep(0.02)
    return answer


class Streams:
    """The caller's ends of standard output and error, and what came out of them."""

    def __init__(self) -> None:
        self._ends: dict[int, int] = {}
        self.theirs: list[int] = []
        self.bytes: dict[int, bytearray] = {1: bytearray(), 2: bytearray()}
        for number in (1, 2):
            ours, theirs = os.pipe()
            self._ends[ours] = number
            self.theirs.append(theirs)

    def handed_over(self) -> None:
        """The process has its ends: let go of them."""
        while self.theirs:
            os.close(self.theirs.pop())

    def read(self, timeout: float) -> bool:
        """Read what is there; false when nothing came in time, or both are at their end."""
        ready = select.select(list(self._ends), [], [], timeout)[0] if self._ends else []
        for end in ready:
            data = os.read(end, 1 << 20)
            self.bytes[self._ends[end]] += data
            if not data:
                os.close(end)
                del self._ends[end]
        return bool(ready)

    def drain(self, patience: float = PATIENCE) -> None:
        """Read to the end, which must come."""
        deadline = time.monotonic() + patience
        while self._ends:
            assert self.read(deadline - time.monotonic()), f"output goes on: {self.out[-300:]}"

    def expect(self, text: str, patience: float = PATIENCE) -> None:
        """Read until standard output has a text."""
        deadline = time.monotonic() + patience
        while text not in self.out:
            more = self.read(max(0, deadline - time.monotonic()))
            assert more, f'"{text}" did not come: {self.out[-500:]} {self.err[-500:]}'

    @property
    def out(self) -> str:
        """Standard output so far."""
        return decoded(bytes(self.bytes[1]))

    @property
    def err(self) -> str:
        """Standard error so far."""
        return decoded(bytes(self.bytes[2]))

    def close(self) -> None:
        """Let go of everything."""
        self.handed_over()
        for end in list(self._ends):
            os.close(end)
        self._ends.clear()


class Process:
    """A process started by the runtime into a pid file: a container's or an exec's."""

    awaited: ClassVar[set[int]] = set()

    def __init__(self, runtime: Runtime, directory: str) -> None:
        self.runtime = runtime
        self.directory = directory
        self.streams = Streams()
        self.pid = 0
        self.code: int | None = None

    def call(self, words: list[str], stdin: int | None = None, fds: tuple[int, ...] = ()) -> Result:
        """Let the runtime start it, with our pipes on its standard streams."""
        log = f"{self.directory}/log.json"
        pid_file = words[words.index("--pid-file") + 1]
        process = subprocess.Popen(
            self.runtime.words(*words, log=log),
            stdin=subprocess.DEVNULL if stdin is None else stdin,
            stdout=self.streams.theirs[0], stderr=self.streams.theirs[1], pass_fds=fds,
        )  # fmt: skip
        self.streams.handed_over()
        code = ended(process)
        if not code:
            with open(pid_file, encoding="utf-8") as file:
                self.pid = int(file.read())
            self.awaited.add(self.pid)
        while code and self.streams.read(0):
            pass
        return self.runtime.result(tuple(words), code, "", self.streams.err, log)

    def wait(self, patience: float = PATIENCE) -> int:
        """Read its output to the end and reap it; its code."""
        self.streams.drain(patience)
        if self.code is None:
            self.code = reap(self.pid, patience)
            self.awaited.discard(self.pid)
        return self.code

    def finish(self) -> None:
        """Reap it when it is gone, and let go of its streams."""
        self.streams.close()
        if self.pid and self.code is None:
            with contextlib.suppress(ProcessLookupError, ChildProcessError, OSError):
                self.code = reap(self.pid, 10)
        self.awaited.discard(self.pid)

    out = property(lambda self: self.streams.out)
    err = property(lambda self: self.streams.err)


class Container(Process):
    """A container by id, with its bundle."""

    def __init__(self, runtime: Runtime, bundle: str, name: str) -> None:
        super().__init__(runtime, bundle)
        self.bundle = bundle
        self.rootfs = f"{bundle}/rootfs"
        self.id = name
        self._execs = count(1)

    def create(self, *options: str, stdin: int | None = None, fds: tuple[int, ...] = ()) -> Result:
        """Create it, as conmon does."""
        words = ["create", "--bundle", self.bundle, "--pid-file", f"{self.bundle}/pid"]
        return self.call([*words, *options, self.id], stdin, fds)

    def start(self) -> Result:
        """Start it."""
        return self.runtime("start", self.id)

    @property
    def state(self) -> dict:
        """What the runtime says of it."""
        return self.runtime("state", self.id).ok().json()

    @property
    def status(self) -> str:
        """Its status alone."""
        return self.state["status"]

    def kill(self, *words: str) -> Result:
        """Send a signal."""
        return self.runtime("kill", self.id, *words)

    def stopped(self) -> int:
        """Kill it, reap it; its code."""
        self.kill("9").ok()
        return self.wait()

    def exec(self, *words: str, stdin: str = "") -> Result:
        """Run a command in it in the foreground, given options and the command's words."""
        options, arguments = (words, ()) if "--" not in words else split(words)
        return self.runtime("exec", *options, self.id, *arguments, stdin=stdin)

    def sh(self, script: str) -> str:
        """What a shell script in it prints, which must succeed."""
        return self.exec("--", "/bin/sh", "-c", script).ok().out

    def spawn(self, process: dict | None, *options: str, stdin: int | None = None) -> Exec:
        """Start another process in it, detached, as engines do: by a file."""
        directory = f"{self.bundle}/exec-{next(self._execs)}"
        os.mkdir(directory)
        words = ["exec", "--pid-file", f"{directory}/pid", "--detach", *options]
        if process is not None:
            with open(f"{directory}/process", "w", encoding="utf-8") as file:
                json.dump(process, file)
            words += ["--process", f"{directory}/process"]
        return Exec(self, directory, words, stdin)

    def delete(self, *options: str) -> Result:
        """Delete it."""
        return self.runtime("delete", *options, self.id)


class Exec(Process):
    """A process beside a container's first."""

    def __init__(self, container: Container, directory: str, words: list[str], stdin) -> None:
        super().__init__(container.runtime, directory)
        self.result = self.call([*words, container.id], stdin)

    def __enter__(self) -> Self:
        """The process, which must have started."""
        try:
            self.result.ok()
        except AssertionError:
            self.finish()
            raise
        return self

    def __exit__(self, *_exception: object) -> None:
        """Let go of it."""
        self.finish()


def split(words: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Options and arguments, before and after "--"."""
    place = words.index("--")
    return words[:place], words[place + 1 :]


class Suite:
    """A runtime under test, and the making of containers."""

    def __init__(self, runtime: Runtime, directory: str, prefix: str = "conf") -> None:
        self.runtime = runtime
        self.directory = directory
        self.kit = Kit(f"{directory}/kit")
        self.prefix = f"{prefix}-{os.getpid()}"
        self._numbers = count(1)

    def name(self) -> str:
        """A container's id that nobody has."""
        return f"{self.prefix}-{next(self._numbers)}"

    def folder(self) -> str:
        """A new directory, for what a case shares with its container."""
        path = f"{self.directory}/folder-{next(self._numbers)}"
        os.mkdir(path)
        return path

    def container(self, spec: dict | str, name: str = "") -> Container:
        """A bundle and an id; nothing is called yet."""
        name = name or self.name()
        if isinstance(spec, dict) and isinstance(spec.get("linux"), dict):
            spec["linux"].setdefault("cgroupsPath", f"/conformance/{name}")
        bundle = self.kit.make_bundle(f"{self.directory}/bundle-{next(self._numbers)}", spec)
        return Container(self.runtime, bundle, name)

    @contextlib.contextmanager
    def created(self, spec: dict, *options: str, stdin: int | None = None, fds=(), name: str = ""):
        """A created container, deleted at the end."""
        container = self.container(spec, name)
        try:
            container.create(*options, stdin=stdin, fds=fds).ok()
            yield container
        finally:
            self._remove(container)

    @contextlib.contextmanager
    def running(self, spec: dict, *options: str, stdin: int | None = None, fds=(), name: str = ""):
        """A started container, deleted at the end."""
        with self.created(spec, *options, stdin=stdin, fds=fds, name=name) as container:
            container.start().ok()
            yield container

    def _remove(self, container: Container) -> None:
        container.delete("--force")
        container.finish()
        shutil.rmtree(container.bundle, ignore_errors=True)

    def done(self, spec: dict, *options: str, stdin: int | None = None, fds=()) -> Container:
        """A container that ran to its end; its code and its output."""
        with self.running(spec, *options, stdin=stdin, fds=fds) as container:
            container.wait()
        return container

    def refused(self, spec: dict | str, *options: str) -> Result:
        """What a create says that must fail and leave nothing."""
        container = self.container(spec)
        try:
            result = container.create(*options)
            assert result.code, "create succeeded"
            assert self.runtime("state", container.id).code, "the refused container has a state"
            return result
        finally:
            self._remove(container)

    def ask(self, spec: dict, *options: str, prepare=None, **snippets: str) -> SimpleNamespace:
        """Run the probe in a container: its facts, and what each shell snippet gave.

        ``prepare`` is called with the container before it is created; what it returns is called
        with it before it is deleted.
        """
        words = (word for pair in snippets.items() for word in pair)
        spec["process"]["args"] = ["/bin/probe", "ask", *words]
        container = self.container(spec)
        try:
            after = prepare(container) if prepare else None
            container.create(*options).ok()
            container.start().ok()
            container.wait()
            if after:
                after(container)
            return answers(container)
        finally:
            self._remove(container)


def answers(process: Process) -> SimpleNamespace:
    """The probe's lines as attributes: ``facts`` and snippets, with ``out`` and ``code``."""
    lines = process.out.replace("\r\n", "\n").splitlines()
    assert process.code == 0, f"exit {process.code}: {process.out[-500:]} {process.err[-500:]}"
    found = SimpleNamespace()
    for line in lines:
        if not line.startswith('{"name":'):
            continue
        value = json.loads(line, object_pairs_hook=lambda pairs: {k: utf8(v) for k, v in pairs})
        setattr(found, value.pop("name"), SimpleNamespace(**value))
    found.container = process
    return found


def utf8(value):
    """The probe's texts, which are bytes written as Latin-1."""
    if isinstance(value, list):
        return [utf8(item) for item in value]
    return value.encode("latin-1").decode() if isinstance(value, str) else value
