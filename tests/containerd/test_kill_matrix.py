"""Any one process of a pod killed at any moment: right states in time, and nothing left.

The one rule: a killed process may fail what is asked at that moment, never what is asked later:
who cleans up finds it done. The table of all outcomes is printed at the end.
"""

from __future__ import annotations

import os
import re
import signal
import threading
import time

import pytest

from containerd.setting import RUNTIMES, ready
from support import leaks
from support.cri import Done, Error, Pod, until
from support.vm import RESULTS

PHASES = ("creating", "running", "executing", "stopping", "deleting")
VICTIMS = {"runc": ("shim", "containerd"), "kata": ("shim", "vmm", "virtiofsd", "containerd")}
WORDS = {"vmm": "qemu-system", "virtiofsd": "virtiofsd"}
SLOW = 20  # seconds, within which everything asked must have an answer
TABLE: dict[tuple[str, str, str], str] = {}


CASES = [(runtime, victim) for runtime in RUNTIMES for victim in VICTIMS[runtime]]


@pytest.fixture(scope="module", params=CASES, ids="-".join)
def case(request: pytest.FixtureRequest) -> tuple[str, str]:
    """A runtime and who is killed: each runtime has victims of its own."""
    return request.param


@pytest.fixture(scope="module")
def runtime(request: pytest.FixtureRequest, case: tuple[str, str]) -> str:
    """The runtime's name."""
    return ready(case[0], request)


@pytest.fixture(scope="module", autouse=True)
def _printed(request: pytest.FixtureRequest):
    """Print the table, and keep it."""
    yield
    lines = []
    for runtime in {key[0] for key in TABLE}:
        lines.append(f"{runtime:10} | " + " | ".join(f"{phase:26}" for phase in PHASES))
        for victim in VICTIMS[runtime]:
            cells = [TABLE.get((runtime, victim, phase), "-") for phase in PHASES]
            lines.append(f"{victim:10} | " + " | ".join(f"{cell:26}" for cell in cells))
    text = "\n".join(lines) + "\n"
    os.makedirs(RESULTS, exist_ok=True)
    with open(f"{RESULTS}/kill-matrix.txt", "w", encoding="utf-8") as file:
        file.write(text)
    with request.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        print(f"\n{text}")


class Killer:
    """Finds the victim among the processes that the pod brought, and kills it."""

    def __init__(self, containerd, victim: str) -> None:
        self.containerd = containerd
        self.victim = victim
        self.before = set(leaks.descendants(os.getpid()))

    def find(self) -> int:
        """The victim's pid, or 0: of shims the first, of others the last that was started."""
        new = sorted(set(leaks.descendants(os.getpid())) - self.before)
        if self.victim not in WORDS:
            shims = [pid for pid in new if self._is_shim(pid)]
            pid = shims[0] if shims else 0
            return self.containerd.process.pid if pid and self.victim == "containerd" else pid
        found = [pid for pid in new if WORDS[self.victim] in _program(pid)]
        return found[-1] if found else 0

    def _is_shim(self, pid: int) -> bool:
        """Whether it is the shim that serves: whoever started it has ended, so it came to us."""
        named = any("containerd-shim-" in word for word in _words(pid)[:3])
        parent = re.search(r"^PPid:\t(\d+)", leaks._read(f"/proc/{pid}/status"), re.MULTILINE)
        return bool(named and parent and int(parent[1]) == os.getpid())

    def __call__(self) -> None:
        """Kill it, as soon as it is there."""
        pid = until(self.find, 20, self.victim)
        if self.victim == "containerd":
            self.containerd.end(kill=True)
        else:
            os.kill(pid, signal.SIGKILL)

    def mounted(self) -> bool:
        """Whether the shim has begun on a container: its root is there."""
        return "/rootfs " in leaks._read(f"/proc/{self.containerd.place.pid}/mountinfo")

    def mend(self) -> None:
        """What the machine does by itself: start containerd again."""
        if self.victim == "containerd":
            self.containerd.start()


def _words(pid: int) -> list[str]:
    return leaks._read(f"/proc/{pid}/cmdline").split("\0")


def _program(pid: int) -> str:
    try:
        return os.path.basename(os.readlink(f"/proc/{pid}/exe"))
    except OSError:
        return ""


class Asked(threading.Thread):
    """Something asked while the victim dies: it ends in time, with an answer or with an error."""

    def __init__(self, what) -> None:
        super().__init__()
        self._what = what
        self.said = ""
        self.start()

    def run(self) -> None:
        """Ask."""
        try:
            found = self._what()
            self.said = f"code {found.code}" if isinstance(found, Done) else "done"
        except Error as error:
            self.said = error.code().name.lower()

    def answer(self) -> str:
        """Wait for the answer."""
        self.join(SLOW)
        assert not self.is_alive(), f"no answer within {SLOW} s"
        return self.said


@pytest.fixture
def cleared(containerd, kept):
    """All pods are removed after the test, as kubelet does: asked again until it is done."""
    yield
    if containerd.process is None:  # the test failed before it could
        containerd.start()

    def removed() -> bool:
        for sandbox in containerd.cri("ListPodSandbox").items:
            try:
                containerd.cri("StopPodSandbox", pod_sandbox_id=sandbox.id)
                containerd.cri("RemovePodSandbox", pod_sandbox_id=sandbox.id)
            except Error:
                return False
        return True

    until(removed, SLOW, "removal of all pods")
    assert not containerd.cri("ListContainers").containers
    names = ["/usr/bin/ctr", "-n", "k8s.io", "task", "ls", "-q"]
    until(lambda: not containerd.place.run(*names).stdout.split(), 10, "the end of all tasks")


def _is_over(pod: Pod) -> bool:
    """Whether box and sandbox have ended, as the interface says it."""
    return pod.state("box") == "exited" and not pod.ready()


def _creating(make_pod, killer: Killer) -> str:
    made = threading.Event()

    def make() -> None:
        pod = make_pod()
        made.set()
        pod.up("box")

    asked = Asked(make)
    if killer.victim == "containerd":
        made.wait(SLOW)  # what it forgets of a sandbox half made is its own matter
    if killer.victim == "shim":
        until(killer.mounted, SLOW, "a root")  # before, containerd does not know whom to clean up
    killer()
    said = asked.answer()
    killer.mend()
    return said


def _running(make_pod, killer: Killer) -> str:
    pod = make_pod()
    pod.up("box")
    killer()
    killer.mend()
    return _after(pod, killer)


def _after(pod: Pod, killer: Killer) -> str:
    """What must hold of a pod that ran: containerd's death is nothing, another's is its end."""
    if killer.victim == "containerd":
        assert pod.sh("box", "echo well") == "well"
        assert pod.ready()
        return "runs on"
    start = time.monotonic()
    until(lambda: _is_over(pod), SLOW, "the end of box and sandbox")
    assert pod.status("box").exit_code in (137, 255), pod.status("box")
    return f"exited {pod.status('box').exit_code} in {time.monotonic() - start:.1f} s"


def _executing(make_pod, killer: Killer) -> str:
    pod = make_pod()
    pod.up("box")
    asked = Asked(lambda: pod.exec("box", "sleep", "4712"))
    until(lambda: "4712" in pod.sh("box", "ps"))
    killer()
    said = asked.answer()
    assert said != "code 0"
    killer.mend()
    return f"{said}, {_after(pod, killer)}"


def _stopping(make_pod, killer: Killer) -> str:
    pod = make_pod()
    pod.up("box", "probe", "count")
    pod.logged("box", "ready")
    asked = Asked(lambda: pod.stop("box", grace=3))
    pod.logged("box", "SIGTERM")
    killer()
    said = asked.answer()
    killer.mend()
    until(lambda: _stopped(pod), SLOW, "the end of box")
    return said


def _stopped(pod: Pod) -> bool:
    """Whether the box has ended, asked once more as kubelet does."""
    try:
        pod.stop("box")
    except Error:
        return False
    return pod.state("box") == "exited"


def _deleting(make_pod, killer: Killer) -> str:
    pod = make_pod()
    pod.up("box")
    asked = Asked(pod.end)
    try:
        killer()
    except ProcessLookupError:
        pass  # it was faster
    said = asked.answer()
    killer.mend()
    return said


ACTS = dict(zip(PHASES, (_creating, _running, _executing, _stopping, _deleting), strict=True))


@pytest.mark.parametrize("phase", PHASES)
def test_killed(make_pod, containerd, cleared, case, phase, request):
    """What is asked is answered in time, states are right, and the pod can be removed."""
    runtime, victim = case
    if case == ("runc", "shim"):  # which leaves its socket and, at times, groups; ours may not
        request.node.may_leave = ("group ", "mount ", "there ")
    if (victim, phase) == ("containerd", "creating"):  # what it has half made it collects later
        request.node.may_leave = ("there /var/lib/containerd/io.containerd.snapshotter",)
    TABLE[runtime, victim, phase] = "failed"
    said = ACTS[phase](make_pod, Killer(containerd, victim))
    TABLE[runtime, victim, phase] = said
