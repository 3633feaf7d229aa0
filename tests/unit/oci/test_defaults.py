"""The configuration that ``kata run`` writes, against Docker's."""

import pytest

from kata.errors import InvalidInput
from kata.oci.defaults import (
    ALL_CAPABILITIES,
    DEFAULT_CAPABILITIES,
    ContainerRequest,
    ProcessRequest,
    Resources,
    container_spec,
    full_environment,
    image_environment,
    overlaid,
    tweaked_capabilities,
)
from kata.oci.options import Rlimit, Tmpfs, Volume
from kata.oci.spec import faults
from kata.oci.users import User
from kata.wire.record import replace

REQUEST = ContainerRequest(ProcessRequest(("sh",)), "host")


def mounts(request):
    return {m["destination"]: m for m in container_spec(request)["mounts"]}


def test_defaults_are_dockers():
    """Capabilities, namespaces, paths and mounts are those of a Docker container."""
    spec = container_spec(REQUEST)
    capabilities = spec["process"]["capabilities"]
    assert set(capabilities) == {"bounding", "effective", "permitted"}
    assert capabilities["bounding"] == list(DEFAULT_CAPABILITIES)
    assert len(DEFAULT_CAPABILITIES) == 14
    assert {n["type"] for n in spec["linux"]["namespaces"]} == {
        "mount", "network", "uts", "pid", "ipc", "cgroup",
    }  # fmt: skip
    assert [m["destination"] for m in spec["mounts"]] == [
        "/proc", "/dev", "/dev/pts", "/sys", "/sys/fs/cgroup", "/dev/mqueue", "/dev/shm",
    ]  # fmt: skip
    assert "/proc/kcore" in spec["linux"]["maskedPaths"]
    assert "/proc/sys" in spec["linux"]["readonlyPaths"]
    assert spec["linux"]["resources"]["devices"][0] == {"allow": False, "access": "rwm"}
    assert spec["process"]["oomScoreAdj"] == 0
    assert faults(spec) == []


def test_what_is_asked_is_there():
    """Every field of a request reaches its place in the configuration."""
    process = ProcessRequest(
        args=("a", "b"), env=("X=1",), cwd="/w", user=User(1, 2, (3,), "/h", "u"), terminal=True,
        console_size=(24, 80), rlimits=(Rlimit("nofile", 1, 2),), no_new_privileges=True,
        oom_score_adj=5, umask=0o27,
    )  # fmt: skip
    spec = container_spec(
        ContainerRequest(
            process, "h", root="/r", readonly=True, cap_drop=("ALL",), cap_add=("chown",),
            volumes=(Volume("/s", "/d", readonly=True),), tmpfs=(Tmpfs("/t", ("size=1",)),),
            sysctls=(("net.ipv4.ip_forward", "1"),), annotations=(("k", "v"),),
            resources=Resources(1 << 20, 1_500_000_000, 7), shm_size=4096,
        )
    )  # fmt: skip
    assert spec["process"]["user"] == {
        "uid": 1, "gid": 2, "additionalGids": [2, 3], "umask": 0o27,
    }  # fmt: skip
    assert spec["process"]["consoleSize"] == {"height": 24, "width": 80}
    assert {"type": "RLIMIT_NOFILE", "soft": 1, "hard": 2} in spec["process"]["rlimits"]
    assert len(spec["process"]["rlimits"]) == 2
    assert spec["process"]["capabilities"]["bounding"] == ["CAP_CHOWN"]
    assert spec["process"]["noNewPrivileges"] is True
    assert spec["root"] == {"path": "/r", "readonly": True}
    resources = spec["linux"]["resources"]
    assert resources["cpu"] == {"quota": 150_000, "period": 100_000}
    assert resources["memory"] == {"limit": 1 << 20}
    assert resources["pids"] == {"limit": 7}
    assert spec["linux"]["sysctl"]["net.ipv4.ip_forward"] == "1"
    assert spec["annotations"] == {"k": "v"}
    by_place = {m["destination"]: m for m in spec["mounts"]}
    assert by_place["/d"]["options"] == ["rbind", "ro", "rprivate"]
    assert by_place["/t"]["type"] == "tmpfs"
    assert "size=4096" in by_place["/dev/shm"]["options"]
    assert faults(spec) == []


def test_mounts_of_the_user_replace_standard_ones():
    """A volume at a standard place takes it; one at /dev takes what is below; parents first."""
    given = (Volume("/a", "/x/y/z"), Volume("/b", "/x"), Volume("/c", "/proc"))
    found = mounts(replace(REQUEST, volumes=given))
    assert found["/proc"]["source"] == "/c"
    assert list(found)[-3:] == ["/x", "/proc", "/x/y/z"]
    below = mounts(replace(REQUEST, volumes=(Volume("/a", "/dev"),)))
    assert "/dev/shm" not in below
    assert below["/dev"]["source"] == "/a"
    with pytest.raises(InvalidInput, match='duplicate mount point: "/x"'):
        mounts(replace(REQUEST, volumes=(Volume("/a", "/x"),), tmpfs=(Tmpfs("/x"),)))


def test_environment_is_dockers():
    """PATH, HOSTNAME, TERM on a terminal; given values in place; HOME last unless given."""
    process = ProcessRequest(("sh",), user=User(home="/root"))
    assert full_environment(process, "h") == (
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOSTNAME=h",
        "HOME=/root",
    )  # fmt: skip
    given = replace(process, env=("PATH=/p", "A=1", "HOSTNAME", "HOME=/x"), terminal=True)
    assert full_environment(given, "h") == ("PATH=/p", "TERM=xterm", "A=1", "HOME=/x")
    assert overlaid(("A=1", "B=2"), ("A", "C=3")) == ("B=2", "C=3")
    assert image_environment(("A=i", "B=i"), ("A=g", "C")) == ("A=g", "C", "B=i")


@pytest.mark.parametrize(
    ("add", "drop", "expected"),
    [
        ((), (), set(DEFAULT_CAPABILITIES)),
        (
            ("net_admin",),
            ("CAP_CHOWN",),
            set(DEFAULT_CAPABILITIES) - {"CAP_CHOWN"} | {"CAP_NET_ADMIN"},
        ),
        (("CHOWN",), ("CHOWN",), set(DEFAULT_CAPABILITIES)),
        (("all",), (), set(ALL_CAPABILITIES)),
        (("ALL",), ("SYS_ADMIN",), set(ALL_CAPABILITIES) - {"CAP_SYS_ADMIN"}),
        ((), ("ALL",), set()),
        (("KILL",), ("ALL",), {"CAP_KILL"}),
        (("ALL",), ("ALL",), set(ALL_CAPABILITIES)),
    ],
)
def test_capabilities(add, drop, expected):
    """Adding and dropping follow Docker's rules, ALL on either side."""
    found = tweaked_capabilities(add, drop)
    assert set(found) == expected
    assert len(found) == len(set(found))


def test_unknown_capability():
    """A capability that does not exist is refused by name, in either list."""
    for add, drop in ((("FLY",), ()), ((), ("fly",))):
        with pytest.raises(InvalidInput, match='unknown capability: "CAP_FLY"'):
            tweaked_capabilities(add, drop)


def test_all_capabilities_are_in_the_kernels_order():
    """The list is indexed by number, as far as this kernel's header tells."""
    assert ALL_CAPABILITIES.index("CAP_SYS_ADMIN") == 21
    assert ALL_CAPABILITIES.index("CAP_CHECKPOINT_RESTORE") == 40
    assert len(ALL_CAPABILITIES) == 41
