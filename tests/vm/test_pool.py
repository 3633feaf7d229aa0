"""The pool: ready sandboxes that engines are given, with real machines."""

import json
import os
import signal
import subprocess
import time

import pytest

from support import isolation, leaks
from support.bundle import RUNTIME, Bundle
from support.containerd import KILL, finish, simple
from support.pool import KATA, serving

ASK = "cat /proc/sys/kernel/random/boot_id; head -c 16 /dev/urandom | od -An -tx1; date +%s"


class Taker(Bundle):
    """A bundle whose containers come from a pool, one after another, or several."""

    def create(self, name: str = "box", *before: str) -> subprocess.CompletedProcess[bytes]:
        """Make a container; output goes to the file ``out``."""
        with open(f"{self.path}/out", "ab") as out:
            return subprocess.run(
                [*before, RUNTIME, "--root", self._root, "create", "--bundle", self.path, name],
                stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=self._env, timeout=180,
                check=False,
            )  # fmt: skip

    def output(self) -> str:
        """What containers and commands have written."""
        with open(f"{self.path}/out", encoding="utf-8", errors="replace") as file:
            return file.read()

    def run(self, name: str = "box") -> str:
        """Make a container, run it to its end and remove it; what it wrote."""
        already = len(self.output()) if os.path.exists(f"{self.path}/out") else 0
        assert self.create(name).returncode == 0, self.output()
        self.ok("start", name)
        self.until_stopped(name)
        self.ok("delete", name)
        return self.output()[already:]

    def until_stopped(self, name: str = "box") -> None:
        """Wait for its end."""
        end = time.monotonic() + 60
        while json.loads(self.ok("state", name))["status"] != "stopped":
            assert time.monotonic() < end
            time.sleep(0.02)

    def vmm(self, name: str = "box") -> int:
        """The pid of a container's machine monitor, as its state on disk has it."""
        return int(self.kept(name)["vmm_pid"])

    def kept(self, name: str = "box"):
        """Its state on disk."""
        real = f"{self._root}/{os.readlink(f'{self._root}/names/{name}')}"
        with open(f"{real}/state.json", encoding="utf-8") as file:
            return json.load(file)

    def change(self, change) -> None:
        """Change the specification in the bundle."""
        with open(f"{self.path}/config.json", encoding="utf-8") as file:
            spec = json.load(file)
        change(spec)
        with open(f"{self.path}/config.json", "w", encoding="utf-8") as file:
            json.dump(spec, file)

    def runs(self, *args: str) -> None:
        """What its process is from now on."""
        self.change(lambda spec: spec["process"].update(args=list(args)))


@pytest.fixture
def taker(prepared, directory):
    taker = Taker(directory, prepared, "sh", "-c", ASK)
    yield taker
    for name in list(os.listdir(f"{taker._root}/names") if os.path.isdir(taker._root) else ()):
        taker("delete", "--force", name)


@pytest.fixture
def pool(taker, directory):
    with serving([KATA], taker._env, 1, f"{directory}/factory.log") as kept:
        yield kept
    left = [p for p in leaks.processes() if "kata-ready" in p]
    assert not left
    if kept.process.returncode == 0:
        assert not os.path.lexists(f"{directory}/run/factory.sock")


def parent_of(pid: int) -> int:
    with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
        return int(file.read().rpartition(")")[2].split()[1])


def gone(pid: int) -> bool:
    """Whether a process ends within seconds."""
    end = time.monotonic() + 20
    while leaks.lives(pid) and time.monotonic() < end:
        time.sleep(0.02)
    return not leaks.lives(pid)


def test_a_container_takes_a_ready_one(taker, pool):
    """Its supervisor was a member, its machine is in its group; the pool fills again."""
    before = pool.ready()
    assert taker.create().returncode == 0, taker.output()
    supervisor = parent_of(taker.vmm())
    assert supervisor in before
    assert supervisor not in pool.ready()
    with open(f"/proc/{taker.vmm()}/cgroup", encoding="utf-8") as file:
        places = {line.split(":")[1]: line.rstrip().split(":", 2)[2] for line in file}
    assert any(path.endswith(taker.kept()["cgroup"]) for path in places.values()), places
    taker.ok("start", "box")
    taker.until_stopped()
    taker.ok("delete", "box")
    assert gone(supervisor)
    assert not pool.until_full(1) & before


def helpers(supervisor: int) -> dict[str, int]:
    """QEMU and virtiofsd of a supervisor."""
    found = {}
    for pid in leaks.children(supervisor):
        with open(f"/proc/{pid}/comm", encoding="utf-8") as file:
            found["qemu" if file.read().startswith("qemu") else "virtiofsd"] = pid
    return found


def test_everything_is_as_the_table_of_isolation_says(taker, pool, directory):
    """The factory, a member with its machine, and what a member has become."""
    places = {f"{directory}/": "store", taker._data: "store"}
    [member] = pool.ready()
    for name, pid in {"factory": pool.process.pid, "ready": member, **helpers(member)}.items():
        isolation.check(name, pid, set(), places)
    taker.runs("sleep", "1000")
    assert taker.create().returncode == 0, taker.output()
    names = {name for _, _, names in os.walk(f"{taker.path}/rootfs") for name in names}
    for name, pid in {"supervisor": member, **helpers(member)}.items():
        isolation.check(name, pid, names, places)


def test_no_two_are_alike(taker, pool):
    """Random numbers and boot ids are each one's own, and the clock is right after a long rest."""
    time.sleep(2)
    seen = []
    for name in ("one", "two"):
        begin = time.time()
        seen.append(taker.run(name).split("\n"))
        assert begin - 1 <= int(seen[-1][2]) <= time.time() + 1
    assert seen[0][0] != seen[1][0]
    assert seen[0][1] != seen[1][1]


def test_names_are_the_containers(taker, pool):
    """The host name is that of the specification, the process list starts with its process."""
    taker.change(lambda spec: spec.update(hostname="given"))
    taker.runs("sh", "-c", "hostname; echo $$; ls /tmp; ls /proc | grep -c '^[0-9]'")
    assert taker.run().split() == ["given", "1", "3"]


def test_another_shape_has_one_of_its_own(taker, pool):
    """What no member fits is started as without a pool, and no member is lost."""
    before = pool.ready()
    taker.change(lambda spec: spec["linux"]["resources"].update(memory={"limit": 1 << 30}))
    assert taker.create().returncode == 0, taker.output()
    assert parent_of(taker.vmm()) not in before
    assert pool.ready() == before


def test_who_sees_another_host_has_one_of_its_own(taker, pool):
    """A caller in another mount namespace names other files by the same paths."""
    before = pool.ready()
    assert taker.create("box", "unshare", "--mount").returncode == 0, taker.output()
    assert parent_of(taker.vmm()) not in before
    assert pool.ready() == before


def test_a_dead_member_is_replaced(taker, pool):
    """A member whose machine is killed goes, and another comes; creations work meanwhile."""
    before = pool.ready()
    for pid in before:
        for child in leaks.children(pid):
            os.kill(child, signal.SIGKILL)
    assert taker.run()
    assert not pool.until_full(1) & before


def test_the_factory_ends(taker, pool, directory):
    """Members that are nobody's end with it, even if it is killed; a container lives on."""
    taker.runs("sleep", "1000")
    assert taker.create().returncode == 0
    taker.ok("start", "box")
    supervisor = parent_of(taker.vmm())
    members = pool.until_full(1)
    pool.process.kill()
    pool.process.wait()
    assert all(gone(pid) for pid in members)
    assert taker.state()["status"] == "running"
    assert leaks.lives(supervisor)
    taker.ok("delete", "--force", "box")
    taker.runs("echo", "alone")
    assert taker.run("after") == "alone\n"  # nobody listens any more
    with serving([KATA], taker._env, 1, f"{directory}/second.log") as second:
        assert taker.create("last").returncode == 0
        assert parent_of(taker.vmm("last")) not in second.ready()
        taker.ok("delete", "--force", "last")
        second.until_full(1)


def test_there_is_one_factory(taker, pool):
    """Another one says who is there, and takes nothing."""
    done = subprocess.run(
        [KATA, "factory", "serve"], env=taker._env, capture_output=True, text=True, timeout=60,
        check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "a factory serves already" in done.stderr
    assert len(pool.ready()) == 1


def test_other_settings_make_others(taker, pool):
    """A change of the configuration is noticed by the first who comes with it."""
    before = pool.ready()
    with open(taker.settings, "a", encoding="utf-8") as file:
        file.write("[hypervisor.qemu]\nboot_timeout = 61\n")
    assert taker.run()
    end = time.monotonic() + 60
    while pool.ready() & before:
        assert time.monotonic() < end
        time.sleep(0.1)
    now = pool.until_full(1)
    assert taker.create().returncode == 0
    assert parent_of(taker.vmm()) in now


def test_broken_bundles_cost_a_member_nothing_else(taker, pool):
    """What the guest refuses is told as without a pool; nothing of it stays."""
    taker.runs("/nothing/there")
    assert taker.create().returncode == 1
    assert "no such file or directory" in taker.output()
    assert not os.listdir(f"{taker._root}/names")
    pool.until_full(1)


def test_a_shim_takes_a_ready_one(containerd, directory):
    """containerd's shim is a member too; events, output and exit code are as ever."""
    with serving([KATA], containerd.env, 1, f"{directory}/factory.log") as pool:
        [member] = pool.ready()
        path, reader = containerd.fifo("out")
        shim = simple(containerd, "one", "sh", "-c", "exit 7", stdout=path)
        told = isolation.status(shim.of("State", "one").pid)  # of a thread: one for each task
        assert int(told["Tgid"]) == member
        shim.of("Start", "one")
        assert shim.of("Wait", "one").exit_status == 7
        finish(shim, "one")
        os.close(reader)
        assert gone(member)


def test_a_killed_shim_of_the_pool(containerd, directory):
    """Its machine goes with it, and containerd's clean-up finds everything."""
    with serving([KATA], containerd.env, 1, f"{directory}/factory.log") as pool:
        [member] = pool.ready()
        shim = simple(containerd, "one", "sleep", "1000")
        shim.of("Start", "one")
        os.kill(member, KILL)
        assert gone(member)
        assert containerd.delete("one").exit_status == 137
