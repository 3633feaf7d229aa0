"""The product, run as a person runs it: fixtures of the tests that start virtual machines.

The one rule: only the command line is used. State is each test's own; guest image, container
image and templates are shared by all tests and kept between runs in ``build/test-data`` (the
product itself knows when they are stale).
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from support import busybox
from support.host import lacks, need_tool
from support.source import CHECKOUT
from support.terminal import Terminal

PROGRAM = os.environ.get("KATA_TEST_PROGRAM", f"{CHECKOUT}/bin/kata")
DATA = os.environ.get("KATA_TEST_DATA", f"{CHECKOUT}/build/test-data")
# settings, if KATA_TEST_SHARED_FS says who is to serve the share: not what suites are run with
SHARED_FS = "".join(
    f'[hypervisor.qemu]\nshared_fs = "{kind}"\n' for kind in
    filter(None, [os.environ.get("KATA_TEST_SHARED_FS")])
)  # fmt: skip
RESULTS = f"{CHECKOUT}/test-results"
IMAGE = "busybox-test"
TIMEOUT = 120
RESTING = {"cache", "names", "uids"}  # what a state root holds when nothing runs


@dataclass(frozen=True)
class Result:
    """How a command ended, and what it wrote."""

    code: int
    stdout: bytes
    stderr: bytes

    @property
    def out(self) -> str:
        """Standard output as text, without surrounding space."""
        return self.stdout.decode(errors="replace").strip()

    @property
    def err(self) -> str:
        """Standard error as text, without surrounding space."""
        return self.stderr.decode(errors="replace").strip()


class Kata:
    """The command with a state root of its own."""

    def __init__(self, state: str, data: str = DATA, **environment: str) -> None:
        self.state = state
        self.data = data
        self.env = {"PATH": os.environ["PATH"], "HOME": "/root", "TERM": "xterm"} | environment
        self.said: list[str] = []

    def argv(self, *arguments: str) -> list[str]:
        """The whole command line."""
        return [PROGRAM, "--root", self.state, "--data-root", self.data, *arguments]

    def __call__(
        self, *arguments: str, input: bytes | None = None, timeout: float = TIMEOUT, **env: str
    ) -> Result:
        """Run a verb to its end; without ``input`` standard input is empty."""
        process = self.start(
            *arguments, stdin=subprocess.DEVNULL if input is None else subprocess.PIPE, **env
        )
        try:
            out, err = process.communicate(input, timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            self.clear()  # else what still runs holds the pipes
            out, err = process.communicate()
            self._note(arguments, process.returncode, out, err)
            raise AssertionError(f"{arguments} took longer than {timeout} s: {err!r}") from None
        self._note(arguments, process.returncode, out, err)
        return Result(process.returncode, out, err)

    def ok(self, *arguments: str, input: bytes | None = None, timeout: float = TIMEOUT) -> str:
        """Run a verb that must succeed; its output."""
        result = self(*arguments, input=input, timeout=timeout)
        assert result.code == 0, f"{arguments} ended with {result.code}: {result.err}"
        return result.out

    def start(self, *arguments: str, **options) -> subprocess.Popen[bytes]:
        """Start a verb; standard streams are pipes unless said otherwise."""
        streams = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        env = self.env | {key: options.pop(key) for key in list(options) if key.isupper()}
        return subprocess.Popen(self.argv(*arguments), env=env, **(streams | options))

    @contextmanager
    def terminal(self, *arguments: str, **size: int):
        """Run a verb under a terminal."""
        terminal = Terminal(self.argv(*arguments), self.env, **size)
        try:
            yield terminal
        finally:
            terminal.close()
            self._note(arguments, terminal.code, terminal.seen, b"")

    def json(self, *arguments: str):
        """What a verb prints as JSON."""
        return json.loads(self.ok(*arguments))

    def configure(self, text: str) -> None:
        """Use these settings from now on."""
        path = f"{os.path.dirname(self.state)}/configuration.toml"
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        self.env["KATA_CONFIG"] = path

    def inspect(self, name: str):
        """All that is known of a container."""
        [item] = self.json("inspect", name)
        return item

    def wait_until(self, name: str, status: str, timeout: float = 30) -> None:
        """Wait until a container is in a state."""
        deadline = time.monotonic() + timeout
        while (now := self.inspect(name)["status"]) != status:
            assert time.monotonic() < deadline, f"{name} is {now}, not {status}"
            time.sleep(0.05)

    def clear(self) -> None:
        """End and remove whatever there is."""
        path = f"{self.state}/names"
        names = os.listdir(path) if os.path.isdir(path) else []
        if names:
            self("rm", "-f", *names)

    def left(self) -> list[str]:
        """What stands in the state root that does not belong there at rest."""
        held = set(os.listdir(self.state)) - RESTING
        for directory in ("names", "uids"):
            path = f"{self.state}/{directory}"
            held |= {f"{directory}/{name}" for name in os.listdir(path)} if _is(path) else set()
        return sorted(held)

    def _note(self, arguments, code, out: bytes, err: bytes) -> None:
        self.said.append(
            f"$ kata {' '.join(arguments)}\n{out[-4000:].decode(errors='replace')}\n"
            f"{err[-8000:].decode(errors='replace')}\n-> {code}\n"
        )


def _is(path: str) -> bool:
    return os.path.isdir(path)


def _keep(kata: Kata, name: str) -> None:
    """Keep what helps to understand a failure: commands, logs, consoles, state files."""
    target = f"{RESULTS}/{name.replace('/', '_')}"
    shutil.rmtree(target, ignore_errors=True)
    os.makedirs(target)
    with open(f"{target}/commands.txt", "w", encoding="utf-8") as file:
        file.writelines(kata.said)
    for directory, _, names in os.walk(kata.state):
        for file_name in names:
            path = os.path.join(directory, file_name)
            if os.path.isfile(path) and os.path.getsize(path) < 1 << 20:
                shutil.copy(path, f"{target}/{os.path.relpath(path, kata.state).replace('/', '_')}")


@pytest.fixture(scope="session")
def prepared() -> str:
    """The data root with a current guest image, our container image and a template."""
    for tool in ("qemu-system-x86_64", "mkfs.erofs", "busybox", "skopeo"):
        need_tool(tool)
    if not os.path.exists(PROGRAM):
        lacks(f'"{PROGRAM}"')
    os.makedirs(DATA, exist_ok=True)
    state = tempfile.mkdtemp(prefix="kt-", dir="/tmp")
    kata = Kata(state)
    with open(f"{DATA}.lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        current_guest(kata)
        if IMAGE not in kata.ok("image", "ls"):
            kata.ok("image", "import", busybox.make(f"{state}/rootfs"), IMAGE)
        kata.ok("run", "--rm", IMAGE, "true", timeout=300)
    shutil.rmtree(state)
    return DATA


def current_guest(kata: Kata) -> None:
    """Build the guest image (it is kept if it would come out the same); forget older ones."""
    kata.ok("guest", "build", timeout=900)
    rows = kata.json("guest", "ls", "--format", "json")
    old = [r["id"] for r in rows if not r["default"] and str(r["directory"]).startswith(DATA)]
    if old:
        kata("guest", "rm", *old)


@pytest.fixture
def kata(prepared: str, directory: str, request: pytest.FixtureRequest, failed):
    """The command with a state root of the test's own; nothing may be left in it."""
    command = Kata(f"{directory}/state", prepared)
    os.mkdir(command.state)
    yield command
    if failed():
        _keep(command, request.node.name)
    command.clear()
    command("gc")
    if command.left() and not failed():
        pytest.fail(f"left in the state root: {command.left()}", pytrace=False)


@pytest.fixture
def own_images(kata: Kata, directory: str):
    """The command with an image store of the test's own, beside the shared guest image."""
    kata.configure(f'[runtime]\nguest_image = "{kata.data}/guest/default"\n')
    kata.data = f"{directory}/data"
    return kata


@pytest.fixture(scope="session")
def rootfs(worker_directory: str) -> str:
    """A root file system directory, to be read only by the tests."""
    return busybox.make(f"{worker_directory}/rootfs")


@pytest.fixture
def own_rootfs(directory: str) -> str:
    """A root file system directory to be changed by the test."""
    return busybox.make(f"{directory}/rootfs")
