"""Resources: limits as they are seen inside, enforced, and changed while the container runs."""

import json
import os

import pytest

from conformance.bundle import CGROUP, config, namespaces
from conformance.facts import status

MIB = 1 << 20
# where each limit is read inside: version 2's file, then version 1's
FILES = {
    "memory": ("memory.max", "memory/memory.limit_in_bytes"),
    "reservation": ("memory.low", "memory/memory.soft_limit_in_bytes"),
    "pids": ("pids.max", "pids/pids.max"),
    "quota": ("cpu.max", "cpu/cpu.cfs_quota_us"),
    "period": ("cpu.max", "cpu/cpu.cfs_period_us"),
    "shares": ("cpu.weight", "cpu/cpu.shares"),
    "cpus": ("cpuset.cpus", "cpuset/cpuset.cpus"),
}
LIMITS = {
    "memory": {"limit": 64 * MIB, "reservation": 32 * MIB},
    "cpu": {"shares": 512, "quota": 40000, "period": 80000, "cpus": "0"},
    "pids": {"limit": 40},
}


def read(name: str) -> str:
    """A shell command that prints a limit as the container sees it."""
    new, old = FILES[name]
    return f"cat /sys/fs/cgroup/{new} 2>/dev/null || cat /sys/fs/cgroup/{old}"


def limited(*args: str, **resources) -> dict:
    """A config with limits and a view of its groups."""
    return config(
        *args, mounts=(CGROUP,),
        linux={"resources": resources, "namespaces": [*namespaces(), {"type": "cgroup"}]},
    )  # fmt: skip


@pytest.fixture(scope="module")
def bounded(suite):
    """A container with limits of every kind."""
    snippets = {name: read(name) for name in FILES} | {
        "forks": "probe forks 100",
        "eats_little": "probe eat 10 </dev/null",
        "eats_much": "probe eat 200 </dev/null",
        "after": "echo alive",
    }
    return suite.ask(limited(**LIMITS), **snippets)


def test_memory_limit_is_seen(bounded):
    """The limit of memory is in the container's group."""
    assert bounded.memory.out.split() == [str(64 * MIB)]


def test_memory_reservation_is_seen(bounded):
    """The reservation too."""
    assert bounded.reservation.out.split() == [str(32 * MIB)]


def test_pids_limit_is_seen(bounded):
    """The limit of processes too."""
    assert bounded.pids.out.split() == ["40"]


def test_cpu_quota_is_seen(bounded):
    """The quota of time too."""
    assert bounded.quota.out.split()[0] == "40000"


def test_cpu_period_is_seen(bounded):
    """Its period too."""
    assert bounded.period.out.split()[-1] == "80000"


def test_cpu_shares_are_seen(bounded):
    """Shares are shares, or version 2's weight."""
    assert bounded.shares.out.split()[0] in ("512", "20", "59", "50")


def test_cpuset(bounded):
    """The program runs on the processors it was given."""
    assert bounded.cpus.out.split() == ["0"]
    assert status(bounded.facts)["Cpus_allowed_list"] == "0"


def test_pids_limit_holds(bounded):
    """Beyond the limit fork fails with EAGAIN."""
    made, error = map(int, bounded.forks.out.split())
    assert 20 <= made < 40
    assert error == 11


def test_memory_below_the_limit(bounded):
    """What fits into the limit is had."""
    assert bounded.eats_little.out == "ate 10\n"


def test_memory_beyond_the_limit(bounded):
    """What does not is killed, and the others live."""
    assert bounded.eats_much.code == 137
    assert bounded.after.out == "alive\n"


def test_out_of_memory_code(suite):
    """A container whose first process runs out of memory ends as by SIGKILL: 137."""
    done = suite.done(limited("probe", "eat", "200", memory={"limit": 48 * MIB}))
    assert done.code == 137


@pytest.fixture(scope="module")
def changing(suite):
    """A container whose limits are changed."""
    spec = limited("sleep", "100000", **(LIMITS | {"cpu": {"shares": 512}}))
    with suite.running(spec) as container:
        yield container


@pytest.mark.parametrize(
    ("option", "value", "name", "place"),
    [
        ("--memory", str(80 * MIB), "memory", 0),
        ("--pids-limit", "77", "pids", 0),
        ("--cpu-quota", "30000", "quota", 0),
    ],
)
def test_update_by_options(changing, option, value, name, place):
    """update OPTION changes the limit while the container runs."""
    changing.runtime("update", option, value, changing.id).ok()
    assert changing.sh(read(name)).split()[place] == value


def test_update_of_nothing(changing):
    """A document that says nothing changes nothing; one that is no object is refused."""
    before = changing.sh(read("pids"))
    for text in ("null", "{}"):
        changing.runtime("update", "-r", "-", changing.id, stdin=text).ok()
    changing.runtime("update", "-r", "-", changing.id, stdin="[]").refused("")
    assert changing.sh(read("pids")) == before


def on_host(container, controller: str, *files: str) -> str:
    """A limit that the host itself holds: a file of either version of control groups."""
    for root in (f"/sys/fs/cgroup/{controller}", "/sys/fs/cgroup"):
        for file in files:
            path = f"{root}/conformance/{container.id}/{file}"
            if os.path.exists(path):
                with open(path, encoding="ascii") as stream:
                    return stream.read().split()[0]
    return ""


def test_update_of_the_quota_on_the_host(suite):
    """The host lets go of what it held the container to; a quota without a period keeps it."""
    spec = limited("sleep", "100000", cpu={"quota": 10000, "period": 50000, "shares": 512})
    with suite.running(spec) as container:
        files = ("cpu.cfs_quota_us", "cpu.max")
        assert on_host(container, "cpu", *files) == "10000"
        container.runtime("update", "--cpu-quota", "40000", container.id).ok()
        assert on_host(container, "cpu", *files) == "40000"
        assert container.sh(read("quota")).split()[0] == "40000"
        assert container.sh(read("period")).split()[-1] == "50000"
        container.runtime("update", "--cpu-period", "80000", container.id).ok()
        assert on_host(container, "cpu", *files) == "40000"
        assert container.sh(read("quota")).split()[0] == "40000"
        container.runtime("update", "--cpu-quota", "-1", container.id).ok()
        assert on_host(container, "cpu", *files) in ("-1", "max")


def test_update_of_the_processors(suite):
    """Those of the host may be named, also where the container was not bound to any."""
    with suite.running(limited("sleep", "100000")) as container:
        last = max(os.sched_getaffinity(0))
        container.runtime("update", "--cpuset-cpus", str(last), container.id).ok()
        assert on_host(container, "cpuset", "cpuset.cpus") == str(last)
        container.runtime("update", "--cpuset-cpus", "4000", container.id).refused("cpu")
        assert on_host(container, "cpuset", "cpuset.cpus") == str(last)
        assert container.sh("echo alive") == "alive\n"


def test_processors_leave_nothing(suite):
    """A group that an update brought goes with the container that ended by itself."""
    with suite.running(limited("sleep", "100000")) as container:
        container.runtime("update", "--cpuset-cpus", "0", container.id).ok()
        assert on_host(container, "cpuset", "cpuset.cpus") == "0"
        container.stopped()
        container.delete().ok()
        assert on_host(container, "cpuset", "cpuset.cpus") == ""


def test_update_by_a_file(changing):
    """update --resources FILE, as Podman calls it."""
    path = f"{changing.bundle}/resources.json"
    with open(path, "w", encoding="utf-8") as file:
        json.dump({"memory": {"limit": 96 * MIB}}, file)
    changing.runtime("update", f"--resources={path}", changing.id).ok()
    assert changing.sh(read("memory")).split() == [str(96 * MIB)]


def test_update_by_standard_input(changing):
    """update --resources -, as Docker and containerd call it."""
    text = json.dumps({"pids": {"limit": 55}})
    changing.runtime("update", "--resources", "-", changing.id, stdin=text).ok()
    assert changing.sh(read("pids")).split() == ["55"]


def test_update_makes_room(suite):
    """A limit far above the first one can be used up to it."""
    spec = limited("sleep", "100000", memory={"limit": 64 * MIB})
    with suite.running(spec) as container:
        assert container.sh("probe eat 600; echo $?") == "137\n"
        changes = {"memory": {"limit": 800 * MIB, "swap": 800 * MIB}}
        container.runtime(
            "update", "--resources", "-", container.id, stdin=json.dumps(changes)
        ).ok()
        assert container.sh("probe eat 600") == "ate 600\n"


def test_update_keeps_the_rest(changing):
    """What an update does not name stays."""
    before = changing.sh(read("shares"))
    changing.runtime("update", "--pids-limit", "50", changing.id).ok()
    assert changing.sh(read("shares")) == before


def test_update_holds_at_once(changing):
    """A new limit is enforced for what runs."""
    changing.runtime("update", "--pids-limit", "12", changing.id).ok()
    made = int(changing.sh("probe forks 50").split()[0])
    assert made < 12
    changing.runtime("update", "--pids-limit", "60", changing.id).ok()


def test_update_of_unknown(runtime):
    """update of what does not exist says so."""
    runtime("update", "--memory", "64M", "conf-nobody").refused("does not exist")


def test_update_with_broken_json(changing):
    """update with what is no JSON is an error, and nothing changes."""
    before = changing.sh(read("memory"))
    changing.runtime("update", "--resources", "-", changing.id, stdin="{broken").refused()
    assert changing.sh(read("memory")) == before


def test_negative_limits_are_none(suite):
    """A limit of -1 is no limit."""
    spec = limited(memory={"limit": -1}, pids={"limit": -1})
    found = suite.ask(spec, pids=read("pids"), eats="probe eat 40 </dev/null")
    assert found.pids.out.split() == ["max"]
    assert found.eats.code == 0


@pytest.mark.needs("events")
def test_statistics(changing):
    """events --stats gives one JSON object with what containerd and cAdvisor read."""
    stats = json.loads(changing.runtime("events", "--stats", changing.id).ok().out)
    assert (stats["type"], stats["id"]) == ("stats", changing.id)
    data = stats["data"]
    assert data["memory"]["usage"]["usage"] > 0
    assert data["memory"]["usage"]["limit"] >= 64 * MIB
    assert data["pids"]["current"] >= 1
    assert data["cpu"]["usage"]["total"] > 0


@pytest.mark.needs("events")
def test_statistics_of_unknown(runtime):
    """events of what does not exist says so."""
    runtime("events", "--stats", "conf-nobody").refused("does not exist")


def test_memory_that_holds_nothing(suite):
    """A limit that not even the runtime's own process fits in: one line says so."""
    result = suite.refused(limited("true", unified={"memory.max": "1"}))
    result.refused("memory limit too low", "cannot use unified on cgroup v1")
    assert len(result.message.strip().splitlines()) == 1
    suite.refused(limited("true", memory={"limit": 1})).refused("memory limit", "OOM")


@pytest.mark.skipif(
    not os.path.exists("/sys/fs/cgroup/cgroup.controllers"), reason="version 2's groups alone"
)
def test_unified(suite):
    """linux.resources.unified sets files of version 2's by name."""
    found = suite.ask(limited(unified={"pids.max": "33"}), pids=read("pids"))
    assert found.pids.out.split() == ["33"]
