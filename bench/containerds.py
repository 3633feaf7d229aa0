"""containerd with our shim and with runc's: whole ``ctr run``, pods over CRI, starts of shims.

The one rule: both runtimes are asked by one daemon, in turn; what ends a sample is not in it.
"""

from __future__ import annotations

import contextlib
import glob
import itertools
import os
import shutil
import subprocess
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor

import arms
import memory
import runtimes

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator

    from support.node import Containerd, Ctr

RUNTIMES = ("kata", "runc")
RUNC_SHIM = "/usr/bin/containerd-shim-runc-v2"
AT_ONCE = 10
_TIMEOUT_S = 300
_NAMES = itertools.count(1)


class Ran(arms.Arm):
    """``ctr run --rm`` of ``true``, whole."""

    def __init__(self, ctr: Ctr, image: str) -> None:
        super().__init__(f"ctr run, {ctr.runtime}", "ctr run --rm IMAGE NAME true", [])
        self._ctr, self._image = ctr, image

    def measure(self) -> dict[str, float]:
        """Time to its exit."""
        begin = time.perf_counter()
        self.once()
        return {"exit": (time.perf_counter() - begin) * 1e3}

    def once(self) -> None:
        """One run, which must succeed."""
        name = f"bench-{next(_NAMES)}"
        words = self._ctr.argv("run", "--rm", f"{self._image}:latest", name, "true")
        done = subprocess.run(
            words, env=self._ctr.place.env, stdin=subprocess.DEVNULL, capture_output=True,
            timeout=_TIMEOUT_S, check=False,
        )  # fmt: skip
        if done.returncode:
            raise arms.Failed(f"{' '.join(words)}: {done.stderr.decode()}")


class Together(arms.Arm):
    """So many of them started at once, to the end of the last."""

    def __init__(self, one: Ran) -> None:
        meaning = "from the first start to the last end"
        super().__init__(f"{one.name}, {AT_ONCE} at once", meaning, [])
        self._one = one

    def measure(self) -> dict[str, float]:
        """Time until all have ended."""
        with ThreadPoolExecutor(AT_ONCE) as threads:
            begin = time.perf_counter()
            every = [threads.submit(self._one.once) for _ in range(AT_ONCE)]
            for one in every:
                one.result()
            return {"exit": (time.perf_counter() - begin) * 1e3}


class PodArm(arms.Arm):
    """A pod over CRI: until its sandbox is ready, then until a container in it has started."""

    def __init__(self, daemon: Containerd, runtime: str, directory: str, image: str) -> None:
        super().__init__(f"pod, {runtime}", "RunPodSandbox; CreateContainer and StartContainer", [])
        self._daemon, self._runtime = daemon, runtime
        self._directory, self._image = directory, image

    def measure(self) -> dict[str, float]:
        """The times of both steps."""
        from support.cri import Pod

        begin = time.perf_counter()
        pod = Pod(self._daemon.cri, self._runtime, self._directory, self._image)
        ready = time.perf_counter()
        try:
            pod.up("main", "sleep", "3600")
            started = time.perf_counter()
        finally:
            pod.end()
        return {"ready": (ready - begin) * 1e3, "container": (started - ready) * 1e3}


class ShimStart(arms.Arm):
    """The action ``start``, to the printed address."""

    def __init__(self, name: str, program: str, bundle: str, env: dict[str, str]) -> None:
        self._address = env["TTRPC_ADDRESS"].removesuffix(".ttrpc")
        super().__init__(f"shim start, {name}", f"{os.path.basename(program)} start", [program])
        self._bundle, self._env = bundle, env

    def measure(self) -> dict[str, float]:
        """Time to the command's exit; then the shim is killed, and cleaned up after."""
        name = f"bench-{os.getpid()}-{next(_NAMES)}"
        bundle = f"{os.path.dirname(self._bundle)}/{name}"
        os.mkdir(bundle)
        shutil.copy(f"{self._bundle}/config.json", bundle)
        words = [*self.command, "-namespace", "bench", "-address", self._address, "-id", name]
        options = {
            "cwd": bundle, "env": self._env, "stdin": subprocess.DEVNULL, "check": True,
            "stdout": subprocess.PIPE, "timeout": _TIMEOUT_S,
        }  # fmt: skip
        begin = time.perf_counter()
        done = subprocess.run([*words, "start"], **options)
        taken = (time.perf_counter() - begin) * 1e3
        if pid := self._served_by(name, bundle):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, 9)
        if os.path.exists(f"{bundle}/shim.pid"):  # ours: runc's has nothing to clean yet
            subprocess.run([*words, "-bundle", bundle, "delete"], **options)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(done.stdout.decode().strip().removeprefix("unix://"))
        shutil.rmtree(bundle)
        return {"address": taken}

    def _served_by(self, name: str, bundle: str) -> int:
        """The process that serves, 0: none any more; runc's is known by its words alone."""
        with contextlib.suppress(FileNotFoundError):
            with open(f"{bundle}/shim.pid", encoding="ascii") as file:
                return int(file.read())
        for path in glob.glob("/proc/[0-9]*/cmdline"):
            with contextlib.suppress(OSError), open(path, "rb") as file:
                if name.encode() in file.read().split(b"\0"):
                    return int(path.split("/")[2])
        return 0


def measure(
    options: argparse.Namespace, bundle: str, scratch: str,
    interleave: Callable[[list[arms.Arm], int], None],
) -> tuple[list[arms.Arm], dict[str, object]]:
    """The arms of this part, measured, and the memory of a shim that serves."""
    from support.engines import IMAGE
    from support.node import SHIM, Ctr

    with containerd(options.data) as daemon:
        ran = {name: Ran(Ctr(daemon.place, name), IMAGE) for name in RUNTIMES}
        ran["kata"].once()  # makes the template
        directory = f"{daemon.place.directory}/pods"
        pods = [PodArm(daemon, name, directory, IMAGE) for name in RUNTIMES]
        env = os.environ | {
            "KATA_CONFIG": runtimes.configuration(scratch, options.data),
            "TTRPC_ADDRESS": f"{daemon.cri.socket}.ttrpc",
        }
        starts = [
            ShimStart("kata", SHIM, bundle, env),
            ShimStart("runc", RUNC_SHIM, bundle, env),
        ]
        interleave([*ran.values(), *pods, *starts], options.samples)
        together = [Together(one) for one in ran.values()]
        interleave([*together, ran["kata"]], max(3, options.samples // 4))
        return [*ran.values(), *together, *pods, *starts], served(Ctr(daemon.place, "kata"))


def served(ctr: Ctr) -> dict[str, object]:
    """The sizes of a shim with one container, once it is quiet; MiB."""
    ctr.up("sleep", "3600", name="bench")
    try:
        time.sleep(memory.SETTLE_S)
        rows = [line.split() for line in ctr.ok("task", "ls").splitlines()[1:]]
        sizes = memory.of(int(rows[0][1]))
    finally:
        ctr.end("bench")
    return {"count": 1, "sandbox": memory.rounded(sizes)}


@contextlib.contextmanager
def containerd(data: str) -> Iterator[Containerd]:
    """The daemon in a place of its own, with the images."""
    from support import node
    from support.place import Place

    place = Place(tempfile.mkdtemp(prefix="kb-", dir="/tmp"), node.GROUPS)
    os.makedirs(f"{place.directory}/pods")
    daemon = node.Containerd(place, data)
    try:
        daemon.start()
        for archive in node.archives(place.directory):
            daemon.load(archive)
        yield daemon
    finally:
        daemon.end()
        place.close()
