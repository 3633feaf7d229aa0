"""A pool of ready sandboxes, kept by ``kata factory serve`` for as long as a test wants it."""

from __future__ import annotations

import json
import subprocess
import time
from contextlib import contextmanager

from support import leaks
from support.source import CHECKOUT

KATA = f"{CHECKOUT}/bin/kata"
_PATIENCE_S = 120.0


class Pool:
    """A running ``kata factory serve``; ``argv`` is how ``kata`` is called where it runs."""

    def __init__(self, process: subprocess.Popen[bytes], argv: list[str], env) -> None:
        self.process = process
        self._argv, self._env = argv, env

    def members(self):
        """What ``kata factory pool`` says."""
        argv = [*self._argv, "factory", "pool", "--format", "json"]
        done = subprocess.run(argv, env=self._env, capture_output=True, timeout=60, check=False)
        return json.loads(done.stdout) if done.returncode == 0 else []

    def ready(self) -> set[int]:
        """The pids of those that wait."""
        return {member["pid"] for member in self.members() if member["state"] == "ready"}

    def until_full(self, size: int) -> set[int]:
        """Wait until so many are ready; their pids."""
        end = time.monotonic() + _PATIENCE_S
        while len(found := self.ready()) < size:
            assert self.process.poll() is None, "the factory has ended"
            assert time.monotonic() < end, f"the pool does not fill: {self.members()}"
            time.sleep(0.1)
        return found

    def own(self) -> set[int]:
        """Every process that is the pool's and nobody else's yet."""
        found = {self.process.pid}
        for pid in leaks.descendants(self.process.pid):
            if "kata-ready" in leaks.describe(pid) or "factory serve" in leaks.describe(pid):
                found |= {pid, *leaks.descendants(pid)}
        return found


@contextmanager
def serving(argv: list[str], env, size: int, log: str):
    """Keep a pool; ``argv`` calls ``kata``. It is full when the body begins, gone at the end."""
    with open(log, "ab") as file:
        process = subprocess.Popen(
            [*argv, "factory", "serve", "--size", str(size)], env=env,
            stdin=subprocess.DEVNULL, stdout=file, stderr=file,
        )  # fmt: skip
    pool = Pool(process, argv, env)
    leaks.pools.append(pool.own)
    try:
        pool.until_full(size)
        yield pool
    finally:
        leaks.pools.remove(pool.own)
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise


@contextmanager
def serving_in(place, size: int):
    """A pool in a place of engines, for those in there."""
    with serving(place.argv(KATA), place.env, size, f"{place.directory}/factory.log") as kept:
        place.pooled = True
        yield kept
        place.pooled = False
