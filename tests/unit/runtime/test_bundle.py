"""From an engine's configuration to what is shared and what the guest is told."""

from __future__ import annotations

import os

import pytest

from kata.errors import InvalidInput
from kata.runtime import bundle
from kata.runtime.bundle_workload import BundleWorkload
from kata.runtime.control_api import ExecRequest
from kata.runtime.store import ContainerState
from kata.storage import plan as storage
from kata.wire.quickjson import loads

SPEC = {
    "ociVersion": "1.0.2",
    "process": {"args": ["sh"], "cwd": "/"},
    "root": {"path": "rootfs", "readonly": True},
    "annotations": {"a": "b"},
    "hooks": {"prestart": [{"path": "/bin/true"}], "startContainer": [{"path": "/hook"}]},
    "mounts": [
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {"destination": "/etc/hosts", "source": "hosts", "options": ["bind", "ro"]},
        {"destination": "/dev/shm", "type": "bind", "source": "/run/shm", "options": ["bind"]},
        {"destination": "/sys", "type": "bind", "source": "/sys", "options": ["rbind", "ro"]},
        {"destination": "/data", "source": "/srv/data", "options": ["rbind", "rshared"]},
    ],
    "linux": {
        "cgroupsPath": "/x/y", "seccomp": {"defaultAction": "SCMP_ACT_ALLOW"},
        "maskedPaths": ["/proc/kcore"], "intelRdt": {},
        "namespaces": [{"type": "mount"}, {"type": "pid"}, {"type": "network", "path": "/n"}],
    },
}  # fmt: skip


def look(path):
    """What the paths of ``SPEC`` are on a host."""
    return path != "/b/hosts", 64 << 20 if path == "/run/shm" else 0


def nothing(_mount):
    """There is no overlay."""
    raise AssertionError


@pytest.fixture
def told():
    """The mounts of ``SPEC`` and the configuration for the guest."""
    mounts = bundle.sort_mounts(SPEC, "/b", look, nothing)
    plan = storage.plan("c", storage.Directory("/b/rootfs"), mounts.volumes)
    spaces = bundle.spaces(SPEC, lambda kind, path: f"{kind}:{path}")
    return mounts, bundle.guest_spec(SPEC, mounts, plan, spaces, {"id": "web"})


def test_only_files_of_the_host_go_through_the_share(told):
    """The kernel's file systems are the guest's, shared memory is made in the guest."""
    mounts, _ = told
    assert [v.source for v in mounts.volumes] == ["/b/hosts", "/srv/data"]
    assert [v.is_directory for v in mounts.volumes] == [False, True]
    assert mounts.memory == (("/run/shm", 64 << 20),)


def test_mounts_keep_their_order_and_get_sources_of_the_guest(told):
    """A relative source is the bundle's; what is bound from the share says so."""
    _, spec = told
    by_place = {m["destination"]: m for m in spec["mounts"]}
    assert list(by_place) == ["/proc", "/etc/hosts", "/dev/shm", "/sys", "/data"]
    assert by_place["/etc/hosts"]["source"].startswith(storage.SHARED)
    assert by_place["/etc/hosts"]["options"] == ["bind", "ro"]
    assert by_place["/data"]["options"] == ["rbind", "rshared"]
    assert by_place["/dev/shm"]["source"] == bundle.memory_point("/run/shm")
    assert by_place["/sys"] == SPEC["mounts"][3]


def test_what_is_only_the_hosts_is_left_out(told):
    """Hooks of the host, control groups, the filter's source: none of the guest's business."""
    _, spec = told
    assert "annotations" not in spec
    assert spec["hooks"] == {"startContainer": [{"path": "/hook"}], "state": {"id": "web"}}
    assert not {"seccomp", "cgroupsPath", "intelRdt"} & set(spec["linux"])
    assert spec["linux"]["maskedPaths"] == ["/proc/kcore"]


def test_the_configuration_itself_is_not_changed(told):
    """It is the engine's, and kept."""
    assert "seccomp" in SPEC["linux"]
    assert SPEC["root"]["path"] == "rootfs"
    assert told[1]["root"]["path"] != "rootfs"


def test_a_container_always_has_mounts_and_groups_of_its_own():
    """Even where it shares those of the host, which a guest cannot."""
    found = bundle.spaces({"linux": {"namespaces": []}}, lambda _kind, _path: "")
    assert found == {"mount": "", "cgroup": ""}


def test_namespaces_are_joined_where_the_owner_says():
    """A path on the host becomes a path in the guest."""
    spec = {"linux": {"namespaces": [{"type": "ipc", "path": "/proc/7/ns/ipc"}]}}
    found = bundle.spaces(spec, lambda kind, path: f"{kind} of {path}")
    assert found["ipc"] == "ipc of /proc/7/ns/ipc"


def test_processors_of_the_host_are_not_the_guests_business():
    """A guest has fewer, and other ones."""
    found = bundle.guest_resources({"cpu": {"cpus": "4-7", "mems": "1", "shares": 5}, "pids": {}})
    assert found == {"cpu": {"shares": 5}, "pids": {}}


@pytest.mark.parametrize("place", ["/a", "/dev/shm"])
def test_a_bind_mount_without_a_source_is_of_the_bundle(place):
    """As with runc; shared memory has a name."""
    entries = [{"destination": place, "type": "bind"}]
    entries.append({**entries[0], "source": ""})
    mounts = bundle.sort_mounts({"mounts": entries}, "/b", lambda _: (True, 1 << 20), nothing)
    assert [v.source for v in mounts.volumes] == ["/b", "/b"]
    assert bundle.host_binds({"mounts": entries}, "/b") == (("/b", place),) * 2


def test_an_overlay_is_made_on_the_host():
    """Its directories are the host's: the guest binds what comes of them, with its own options."""
    options = ["lowerdir=/a:/b", "upperdir=/u", "workdir=/w", "private", "noexec"]
    entry = {"destination": "/o", "type": "overlay", "source": "overlay", "options": options}
    spec = {**SPEC, "mounts": [entry]}
    mounts = bundle.sort_mounts(spec, "/b", look, lambda mount: f"{mount['destination']} overlay")
    [volume] = mounts.volumes
    assert (volume.source, volume.options) == ("/o overlay", ("private", "noexec"))
    plan = storage.plan("c", storage.Directory("/b/rootfs"), mounts.volumes)
    assert [s.fresh for s in plan.shares] == [False, True]
    [mount] = bundle.guest_spec(spec, mounts, plan, {}, {})["mounts"]
    assert mount == {
        "destination": "/o", "type": "bind", "source": plan.mounts[0]["source"],
        "options": ["rbind", "private", "noexec"],
    }  # fmt: skip
    assert bundle.host_binds(spec, "/b") == (("lowerdir=/u:/a:/b", "/o"),)
    broken = {"mounts": [{**entry, "options": ["lowerdir=relative"]}]}
    assert bundle.host_binds(broken, "/b") == ()


@pytest.mark.parametrize(
    ("path", "system"),
    [("/proc", True), ("/proc/1", True), ("/sys/fs/cgroup", True), ("/dev/fuse", True),
     ("/dev/shm", False), ("/dev/shm/x", False), ("/devices", False), ("/srv", False), ("", False)],
)  # fmt: skip
def test_the_kernels_own_file_systems(path, system):
    """The guest's are meant where the host's kernel's are named; shared memory is files."""
    assert bundle.is_system(path) is system


@pytest.fixture
def workload():
    """A container of an engine."""
    state = ContainerState(id="f" * 64, name="web", bundle="/b", cgroup="kata/web")
    return BundleWorkload(state, {**SPEC, "process": {**SPEC["process"], "env": []}}, "/data")


@pytest.mark.parametrize(
    ("user", "found"), [("5", {"uid": 5}), ("5:6", {"uid": 5, "gid": 6}), ("", None)]
)
def test_added_processes_take_users_by_number(workload, user, found):
    """A person's exec into a container of an engine."""
    request = ExecRequest(arguments=["id"], user=user)
    process = loads(workload.exec_request(request, ()).process)
    assert process.get("user") == found
    assert process["args"] == ["id"]


def test_names_of_users_are_refused_there(workload):
    """The container's files are not looked at; the engine's own exec knows."""
    with pytest.raises(InvalidInput, match="unknown user"):
        workload.exec_request(ExecRequest(arguments=["id"], user="ann"), ())
@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (b"nameserver 127.0.0.11\noptions ndots:0\n", True),
        (b"search a\n nameserver\t127.0.0.11 \n", True),
        (b"nameserver 192.0.2.1\nnameserver 127.0.0.11", True),
        (b"", False),
        (b"#nameserver 127.0.0.11\n; nameserver 127.0.0.11\n", False),
        (b"nameserver 127.0.0.1\nnameserver 127.0.0.53\nnameserver 127.0.0.111\n", False),
        (b"search 127.0.0.11\nnameserver\n\xff\n", False),
    ],
)
def test_who_answers_names_is_read_from_resolv_conf(text, wanted):
    """Only Docker's resolver is the engine's: others at loopback are a container's own."""
    assert bundle.names_engine(text) is wanted


def test_the_last_mount_at_resolv_conf_counts(tmp_path):
    """It is looked at as it is now; what cannot be read, or is no file, names nobody."""
    mounts = [
        {"destination": "/etc/resolv.conf", "source": source, "options": ["rbind"]}
        for source in ("/first", "resolv.conf")
    ]
    path = bundle.resolv_conf({"mounts": mounts}, str(tmp_path))
    assert path == f"{tmp_path}/resolv.conf"
    assert not bundle.asks_engine(path)
    (tmp_path / "resolv.conf").write_text("nameserver 127.0.0.11\n")
    assert bundle.asks_engine(path)
    os.mkfifo(tmp_path / "fifo")
    for other in ("", str(tmp_path), f"{tmp_path}/fifo"):
        assert not bundle.asks_engine(other)
    assert bundle.resolv_conf(SPEC, "/b") == ""


def test_shared_memory_has_the_size_that_was_asked_for():
    """The shim says it where it made the directory; else it is the host's."""
    for options, size in ((["rbind", "size=65536"], 65536), (["rbind"], 1 << 30)):
        entry = {"destination": "/dev/shm", "type": "bind", "source": "/s", "options": options}
        mounts = bundle.sort_mounts({"mounts": [entry]}, "/b", lambda _: (True, 1 << 30), nothing)
        assert mounts.memory == (("/s", size),)
