"""The runtime as engines call it: each verb against runc's and crun's, and a whole ``podman run``.

The one rule: it is called as conmon calls it, by a child subreaper that lends the standard
streams, has the pid written to a file, and sees the container's end as that of its own child.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import subprocess
import tempfile
import time

import arms

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator

    from support.place import Place

IMAGE = "localhost/bench"
SLEEP = ["/bin/sleep", "1000000"]
VERBS = ("create", "state", "start", "exec", "kill", "end", "delete")
_SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER, prctl(2)
_TIMEOUT_S = 60


def be_subreaper() -> None:
    """Orphans below this process become its children, as with conmon."""
    ctypes.CDLL(None).prctl(_SUBREAPER, 1, 0, 0, 0)


class Life(arms.Arm):
    """One container from create to delete; a moment is what one verb takes, not when it ends."""

    def __init__(self, name: str, program: list[str], bundle: str, directory: str) -> None:
        super().__init__(name, f"the verbs of {os.path.basename(program[0])}", program)
        os.mkdir(directory)
        self._bundle, self._directory = bundle, directory
        self._process = f"{directory}/process.json"
        with open(f"{bundle}/config.json", encoding="utf-8") as file:
            process = {**json.load(file)["process"], "args": ["/bin/echo", "ready"]}
        with open(self._process, "w", encoding="utf-8") as file:
            json.dump(process, file)
        self._count = 0

    def measure(self) -> dict[str, float]:
        """The times of all verbs, in order."""
        self._count += 1
        name, taken = f"bench-{os.getpid()}-{self._count}", {}
        try:
            return self._measure(name, taken)
        except BaseException:
            subprocess.run([*self.command, "delete", "--force", name], check=False)
            raise

    def _measure(self, name: str, taken: dict[str, float]) -> dict[str, float]:
        with self._streams() as (reader, streams):
            pid_file = f"{self._directory}/pid"
            words = ("--bundle", self._bundle, "--pid-file", pid_file, name)
            taken["create"] = self._call("create", *words, **streams)
            pid = _read_pid(pid_file)
            taken["state"] = self._call("state", name, stdout=subprocess.DEVNULL)
            taken["start"] = self._call("start", name)
        with self._streams() as (reader, streams):
            words = ("--process", self._process, "--pid-file", pid_file, "--detach", name)
            begin = time.perf_counter()
            self._call("exec", *words, **streams)
            for stream in streams.values():
                os.close(stream)
            streams.clear()
            if os.read(reader, 64) != arms.WORD:
                raise arms.Failed(f"{self.name}: exec wrote something else")
            _reap(_read_pid(pid_file))
            taken["exec"] = (time.perf_counter() - begin) * 1e3
        begin = time.perf_counter()
        taken["kill"] = self._call("kill", name, "KILL")
        _reap(pid)
        taken["end"] = (time.perf_counter() - begin) * 1e3
        taken["delete"] = self._call("delete", name)
        return {verb: taken[verb] for verb in VERBS}

    @contextlib.contextmanager
    def _streams(self):
        """A pipe for both outputs, as conmon reads them: its reader, and options of ``_call``."""
        reader, writer = os.pipe()
        streams = {"stdout": writer, "stderr": os.dup(writer)}
        try:
            yield reader, streams
        finally:
            for fd in (reader, *streams.values()):
                os.close(fd)

    def _call(self, verb: str, *words: str, **streams) -> float:
        log = f"{self._directory}/log"
        command = [*self.command, "--log", log, "--log-format", "json", verb, *words]
        begin = time.perf_counter()
        code = subprocess.call(command, stdin=subprocess.DEVNULL, **streams)
        end = time.perf_counter()
        if code:
            with open(log, encoding="utf-8") as file:
                raise arms.Failed(f"{' '.join(command)}: exit {code}\n{file.read()}")
        return (end - begin) * 1e3


def _read_pid(path: str) -> int:
    with open(path, encoding="ascii") as file:
        return int(file.read())


def _reap(pid: int) -> None:
    pidfd = os.pidfd_open(pid)
    try:
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        if not poll.poll(_TIMEOUT_S * 1000):
            raise arms.Failed(f"process {pid} does not end")
        os.waitpid(pid, 0)
    finally:
        os.close(pidfd)


class Whole(arms.Arm):
    """An engine's command that must succeed; what it writes is of no interest."""

    def __init__(self, name: str, command: list[str], environment: dict[str, str]) -> None:
        words = (os.path.basename(word) if "/bin/" in word else word for word in command)
        super().__init__(name, " ".join(words), command)
        self._environment = environment

    def measure(self) -> dict[str, float]:
        """Time to its exit."""
        begin = time.perf_counter()
        done = subprocess.run(
            self.command, stdin=subprocess.DEVNULL, capture_output=True, check=False,
            timeout=_TIMEOUT_S, env=self._environment,
        )  # fmt: skip
        end = time.perf_counter()
        if done.returncode:
            raise arms.Failed(f"{' '.join(self.command)}: {done.stderr.decode()}")
        return {"exit": (end - begin) * 1e3}


def measure(
    options: argparse.Namespace, bundle: str, rootfs: str, scratch: str,
    interleave: Callable[[list[arms.Arm], int], None],
) -> list[arms.Arm]:  # fmt: skip
    """The arms of this part, measured."""
    be_subreaper()
    ours = f"{os.path.dirname(options.program)}/kata-runtime"
    # an empty state root of ours; the configuration is found as an engine's runtime finds it
    os.environ["KATA_CONFIG"] = configuration(scratch, options.data)
    lives = [
        Life("kata-runtime", [ours], bundle, f"{scratch}/life-kata"),
        Life("runc", ["runc"], bundle, f"{scratch}/life-runc"),
        Life("crun", ["crun"], bundle, f"{scratch}/life-crun"),
    ]
    interleave(lives, options.samples)
    with podman(rootfs, options.data) as (place, environment):
        wholes = [
            podman_run(name, program, place, environment)
            for name, program in (("kata", ours), ("runc", "runc"), ("crun", "/usr/bin/crun"))
        ]
        interleave(wholes, options.samples)
    return [*lives, *wholes]


def podman_run(name: str, program: str, place: Place, environment: dict[str, str]) -> Whole:
    """``podman run`` of ``true`` with a runtime."""
    words = ("podman", "--runtime", program, "run", "--rm", "--network=none", IMAGE, "true")
    return Whole(f"podman, {name}", place.argv(*words), environment)


def configuration(scratch: str, data: str) -> str:
    """A file of settings with directories of the benchmark's own."""
    path = f"{scratch}/configuration.toml"
    with open(path, "w", encoding="utf-8") as file:
        file.write(f'[runtime]\ndata_root = "{data}"\nstate_root = "{scratch}/engine"\n')
    return path


@contextlib.contextmanager
def podman(rootfs: str, data: str) -> Iterator[tuple[Place, dict[str, str]]]:
    """Podman with stores of its own and the image, in a place of its own."""
    from support import engines, oci_image
    from support.place import Place

    place = Place(tempfile.mkdtemp(prefix="kb-", dir="/tmp"))
    try:
        engines.configure(place, data)
        environment = {k: v for k, v in place.env.items() if k != "KATA_CONFIG"}
        layout = oci_image.write(
            f"{place.directory}/image", [oci_image.layer_of(rootfs)], {"Env": ["PATH=/bin"]}
        )
        archive = f"{place.directory}/image.tar"
        subprocess.run(
            ["skopeo", "copy", "-q", "--insecure-policy", f"oci:{layout}:latest",
             f"docker-archive:{archive}:{IMAGE}:latest"], check=True,
        )  # fmt: skip
        place.run("podman", "load", "-q", "-i", archive)
        yield place, environment
    finally:
        place.close()
