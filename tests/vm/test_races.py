"""What engines do at once, or while something is killed: nothing is left of any of it."""

import glob
import json
import os
import random
import signal
import subprocess
import time

import pytest

from support.bundle import RUNTIME, Bundle

ROUNDS = 20
RESTING = {"cache", "names", "uids"}


class Racer(Bundle):
    """A bundle whose verbs are started side by side; its control group has a name of its own."""

    def __init__(self, directory: str, data: str, *args: str) -> None:
        super().__init__(directory, data, *args)
        self.group = f"races-{os.getpid()}/box"
        path = f"{self.path}/config.json"
        with open(path, encoding="utf-8") as file:
            spec = json.load(file)
        spec["linux"]["cgroupsPath"] = f"/{self.group}"
        with open(path, "w", encoding="utf-8") as file:
            json.dump(spec, file)

    def tidy(self) -> None:
        """The group above, which is the engine's to keep or to remove."""
        above = os.path.dirname(self.group)
        for path in glob.glob(f"/sys/fs/cgroup/*/{above}") + glob.glob(f"/sys/fs/cgroup/{above}"):
            os.rmdir(path)

    def begin(self, *words: str) -> subprocess.Popen[bytes]:
        """Start a verb, its output into a file that nothing has to read."""
        with open(f"{self.path}/out", "ab") as out:
            return subprocess.Popen(
                [RUNTIME, "--root", self._root, *words], stdin=subprocess.DEVNULL, stdout=out,
                stderr=out, env=self._env,
            )  # fmt: skip

    def create(self) -> subprocess.Popen[bytes]:
        """Begin to make the container."""
        return self.begin("create", "--bundle", self.path, "box")

    def left(self) -> list[str]:
        """What is in the root that does not belong there at rest."""
        names = os.listdir(self._root) if os.path.isdir(self._root) else []
        inner = [
            f"{directory}/{name}"
            for directory in ("names", "uids")
            if directory in names
            for name in os.listdir(f"{self._root}/{directory}")
        ]
        groups = glob.glob(f"/sys/fs/cgroup/*/{self.group}") + glob.glob(
            f"/sys/fs/cgroup/{self.group}"
        )
        return [name for name in names if name not in RESTING] + inner + groups

    def nothing_left(self) -> None:
        """Everything of the container goes, within seconds."""
        deadline = time.monotonic() + 20
        while (left := self.left()) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert left == [], self.said()

    def said(self) -> str:
        """What the verbs have written."""
        with open(f"{self.path}/out", encoding="utf-8", errors="replace") as file:
            return file.read()


@pytest.fixture
def racer(prepared, directory):
    racer = Racer(directory, prepared, "sleep", "1000")
    yield racer
    racer("delete", "--force", "box")
    racer.tidy()


def delays(most: float) -> list[float]:
    """Moments spread over a stretch of time, in an order that is the same every time."""
    moments = [most * n / ROUNDS for n in range(ROUNDS)]
    random.Random(1).shuffle(moments)
    return moments


def test_delete_while_it_starts(racer):
    """start and delete --force at once: whoever is first, delete succeeds and takes all."""
    for delay in delays(0.2):
        assert racer.create().wait(60) == 0, racer.said()
        start = racer.begin("start", "box")
        time.sleep(delay)
        assert racer.begin("delete", "--force", "box").wait(60) == 0, racer.said()
        start.wait(60)
        racer.nothing_left()


def test_delete_while_it_is_made(racer):
    """delete --force during create: create is done or undone, and nothing is left."""
    for delay in delays(0.6):
        create = racer.create()
        named = f"{racer._root}/names/box"
        while not os.path.lexists(named) and create.poll() is None:
            time.sleep(0.001)
        time.sleep(delay)
        assert racer.begin("delete", "--force", "box").wait(60) == 0, racer.said()
        create.wait(60)
        racer.nothing_left()


def test_create_that_is_killed(racer):
    """A create that is killed leaves nothing once its supervisor is there, and blocks no name."""
    for delay in delays(0.6):
        create = racer.create()
        named = f"{racer._root}/names/box"
        while not os.path.lexists(named) and create.poll() is None:
            time.sleep(0.001)
        supervised = f"{racer._root}/{os.readlink(named)}/supervisor.log"
        while not os.path.exists(supervised) and create.poll() is None:
            time.sleep(0.001)
        time.sleep(delay)
        create.send_signal(signal.SIGKILL)
        if create.wait(60) == 0:  # it was quicker
            racer.ok("delete", "--force", "box")
        racer.nothing_left()


def test_create_that_is_killed_at_once(racer):
    """A create killed before anything was started is replaced by the next of its name."""
    create = racer.create()
    named = f"{racer._root}/names/box"
    while not os.path.lexists(named):
        time.sleep(0.0005)
    create.send_signal(signal.SIGKILL)
    create.wait(60)
    deadline = time.monotonic() + 30
    while (again := racer.create()).wait(60) and time.monotonic() < deadline:
        pass  # while a supervisor that was there still ends
    assert again.returncode == 0, racer.said()
    racer.ok("delete", "--force", "box")
    racer.nothing_left()
