"""What is measured: each arm takes a sample of itself, milliseconds from start to named moments.

The one rule: everything is timed from outside, by the process that starts it.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import time

HERE = os.path.dirname(os.path.abspath(__file__))
PYTHON = "/usr/bin/python3"
WORD = b"ready\n"


class Failed(Exception):
    """A sample did not do what it had to; what it wrote."""


class Arm:
    """A way to start a process in a container, or a part of one."""

    def __init__(self, name: str, meaning: str, command: list[str]) -> None:
        self.name = name
        self.meaning = meaning
        self.command = command
        self.samples: list[dict[str, float]] = []

    def sample(self) -> None:
        """Run it once and keep what was measured."""
        self.samples.append(self.measure())

    def measure(self) -> dict[str, float]:
        """Time to the first byte of output, and to the exit of the command."""
        return timed(self.command)[0]


class Raw(Arm):
    """QEMU alone; its script measures itself, so that no interpreter's start is in the figure."""

    def measure(self) -> dict[str, float]:
        """The moments the script prints."""
        done = subprocess.run(self.command, stdout=subprocess.PIPE, timeout=300, check=True)
        marks = json.loads(done.stdout)
        del marks["pid"]
        return marks


class Phased(Arm):
    """Our own command with --timing: its phases, beside the time taken from outside."""

    def __init__(self, name: str, meaning: str, command: list[str]) -> None:
        super().__init__(name, meaning, command)
        self.phases: list[list[tuple[str, float]]] = []

    def measure(self) -> dict[str, float]:
        """Total by its own account and from outside."""
        marks, errors = timed(self.command)
        report = json.loads(errors.splitlines()[-1])
        self.phases.append([(phase["name"], phase["ms"]) for phase in report["phases"]])
        return {
            "own_total": report["total_ms"],
            "sum": sum(p["ms"] for p in report["phases"]),
        } | marks


def timed(command: list[str]) -> tuple[dict[str, float], str]:
    """Run ``command``, which must print the word: times of its first byte and exit; its stderr."""
    with open(os.devnull, "rb") as nothing:
        begin = time.perf_counter()
        process = subprocess.Popen(
            command, stdin=nothing, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        out = os.read(process.stdout.fileno(), 1)
        first = time.perf_counter()
        out += process.stdout.read()
        code = process.wait()
        end = time.perf_counter()
    with process.stdout, process.stderr:
        errors = process.stderr.read().decode(errors="replace")
    if code or out != WORD:
        raise Failed(f"{' '.join(command)}: exit {code}, {out!r}\n{errors}")
    return {"output": (first - begin) * 1e3, "exit": (end - begin) * 1e3}, errors


class Kata:
    """The command with directories of the benchmark's own."""

    def __init__(self, program: str, state: str, data: str) -> None:
        self.words = [program, "--root", state, "--data-root", data]
        self.state = state
        self.data = data

    def __call__(self, *words: str) -> str:
        """Run a verb that must succeed; its output."""
        done = subprocess.run([*self.words, *words], capture_output=True, text=True, check=False)
        if done.returncode:
            raise Failed(f"kata {' '.join(words)}: exit {done.returncode}\n{done.stderr}")
        return done.stdout.strip()

    def inspect(self, name: str) -> dict[str, object]:
        """The facts of a container."""
        found = json.loads(self("inspect", name))
        return found[0] if isinstance(found, list) else found


@contextlib.contextmanager
def running(kata: Kata, image: str, count: int, *options: str):
    """So many idle containers, by name."""
    names = [f"bench-{number}" for number in range(count)]
    try:
        for name in names:
            kata("run", "-d", "--name", name, *options, image, "sleep", "1000000")
        yield names
    finally:
        for name in names:
            with contextlib.suppress(Failed):
                kata("rm", "-f", name)


@contextlib.contextmanager
def held(command: list[str], count: int):
    """So many idle guests of QEMU alone: their pids."""
    processes = []
    try:
        for _ in range(count):
            process = subprocess.Popen(
                [*command, "hold"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
            )
            processes.append(process)
        yield [json.loads(process.stdout.readline())["pid"] for process in processes]
    finally:
        for process in processes:
            process.communicate()


class Bundles:
    """The same root file system as OCI bundles for runc and crun."""

    def __init__(self, rootfs: str, scratch: str) -> None:
        self._rootfs = rootfs
        self._scratch = scratch

    def make(self, name: str, arguments: list[str]) -> str:
        """A bundle that runs ``arguments``: what ``runc spec`` gives, without a terminal."""
        path = f"{self._scratch}/{name}"
        os.mkdir(path)
        subprocess.run(["runc", "spec"], cwd=path, check=True)
        with open(f"{path}/config.json", encoding="utf-8") as file:
            spec = json.load(file)
        spec["process"].update(terminal=False, args=arguments)
        spec["root"] = {"path": self._rootfs, "readonly": False}
        with open(f"{path}/config.json", "w", encoding="utf-8") as file:
            json.dump(spec, file)
        return path


@contextlib.contextmanager
def native(runtime: str, bundle: str, name: str):
    """A container of runc or crun that sleeps."""
    subprocess.run(
        [runtime, "run", "-d", "-b", bundle, name], check=True, stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        yield name
    finally:
        subprocess.run([runtime, "delete", "-f", name], check=True)
