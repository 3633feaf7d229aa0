"""User namespaces and id-mapped mounts: whose ids a container's are, and what its root may."""

import os

import pytest

from conformance.bundle import bind, config, merged, namespaces
from conformance.container import eventually

FIRST = 100000  # the host's id of root in the container
MAP = [{"containerID": 0, "hostID": FIRST, "size": 65536}]
POD = "io.kubernetes.cri.container-type"
SANDBOX = "io.kubernetes.cri.sandbox-id"
WRITABLE = {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
            "options": ["nosuid", "noexec", "nodev"]}  # fmt: skip
NET_ADMIN = {"capabilities": {n: ["CAP_SYS_ADMIN", "CAP_NET_ADMIN", "CAP_NET_BIND_SERVICE",
                                  "CAP_SETUID", "CAP_SETGID", "CAP_CHOWN", "CAP_DAC_OVERRIDE",
                                  "CAP_FOWNER", "CAP_SYS_RESOURCE"]
                              for n in ("bounding", "effective", "permitted")}}  # fmt: skip


def mapped_config(*args, mounts=(), **changes) -> dict:
    """A config of a container whose root is the host's user ``FIRST``."""
    spec = config(
        *args, mounts=tuple(mounts),
        linux={"uidMappings": MAP, "gidMappings": MAP,
               "namespaces": [*namespaces(), {"type": "user"}]},
    )  # fmt: skip
    return merged(spec, changes)


def give(suite, container) -> None:
    """Give the root file system to the container's ids, as engines do."""
    os.chmod(suite.directory, 0o755)
    for directory, names, files in os.walk(container.rootfs):
        for name in (*names, *files):
            path = f"{directory}/{name}"
            if name not in ("busybox", "probe"):  # links that other bundles have too
                owner = os.lstat(path)
                os.chown(
                    path, FIRST + owner.st_uid, FIRST + owner.st_gid, follow_symlinks=False
                )
    os.chown(container.rootfs, FIRST, FIRST)


def open_folder(suite) -> str:
    """A directory that everyone may write."""
    folder = suite.folder()
    os.chmod(folder, 0o777)
    return folder


@pytest.fixture(scope="module")
def mapped(suite):
    """What a container whose root is user 100000 of the host's says of itself."""
    folder = open_folder(suite)
    device = {"path": "/dev/net/tun", "type": "c", "major": 10, "minor": 200}
    spec = mapped_config(
        mounts=[bind(folder, "/shared")],
        hostname="mapped",
        process={**NET_ADMIN, "noNewPrivileges": False, "oomScoreAdj": 5,
                 "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 8192, "hard": 8192}]},
        linux={"devices": [device], "sysctl": {"net.ipv4.ip_forward": "1"},
               "resources": {"devices": [
                   {"allow": False, "access": "rwm"},
                   {"allow": True, "type": "c", "major": 10, "minor": 200, "access": "rwm"}]}},
    )  # fmt: skip
    found = suite.ask(
        spec,
        prepare=lambda container: give(suite, container),
        made="touch /shared/made && stat -c %u:%g /shared/made",
        own="stat -c %u:%g:%a:%t:%T /bin/../etc/passwd /home/ann | cut -d: -f1,2",
        foreign="touch /home/ann/foreign && stat -c %u /home/ann/foreign",
        given="touch /shared/given && chown 5:6 /shared/given && stat -c %u:%g /shared/given",
        null="echo x >/dev/null && head -c 4 /dev/zero | wc -c && head -c 4 /dev/urandom | wc -c",
        device="stat -c %t:%T:%a /dev/net/tun",
        mknod="mknod /tmp/null c 1 3",
        stdout="echo again >/dev/stdout",
        name="hostname changed && hostname",
        low="nc -l -p 80 -w 1 -e true 2>/dev/null & sleep 0.3; cat /proc/net/tcp* | grep -c :0050",
        sysfs="ls /sys/class/net",
        forward="cat /proc/sys/net/ipv4/ip_forward",
        limit="ulimit -n",
        score="cat /proc/self/oom_score_adj",
        mount="mkdir /tmp/m && mount -t tmpfs none /tmp/m && touch /tmp/m/x && ls /tmp/m",
        outside="chown 70000 /shared/made",
        kernel="echo 1 >/proc/sys/kernel/panic",
    )
    found.folder = folder
    return found


def test_user_namespace_map(mapped):
    """The map is the config's."""
    assert mapped.facts.uid_map.split() == ["0", "100000", "65536"]
    assert mapped.facts.gid_map.split() == ["0", "100000", "65536"]


def test_user_namespace_root(mapped):
    """Root inside is root there."""
    assert mapped.facts.uid == 0


def test_user_namespace_files(mapped):
    """What its root makes in a volume belongs to the mapped user on the host."""
    assert mapped.made.out == "0:0\n"
    made = os.stat(f"{mapped.folder}/made")
    assert (made.st_uid, made.st_gid) == (FIRST, FIRST)


def test_owners_of_the_image(mapped):
    """Files of the image have the owners inside that the map gives them."""
    assert mapped.own.out == "0:0\n1000:1000\n"


def test_root_writes_what_belongs_to_others(mapped):
    """Root in the container makes files in a directory of another user of its map."""
    assert (mapped.foreign.out, mapped.foreign.code) == ("0\n", 0)


def test_root_gives_files_away(mapped):
    """Root in the container gives a file to users of the map, who are the host's mapped ones."""
    assert mapped.given.out == "5:6\n"
    given = os.stat(f"{mapped.folder}/given")
    assert (given.st_uid, given.st_gid) == (FIRST + 5, FIRST + 6)


def test_nothing_outside_of_the_map(mapped):
    """An id that is not in the map cannot be given a file."""
    assert mapped.outside.code


def test_devices_are_there(mapped):
    """The default devices work, though none can be made."""
    assert mapped.null.out == "4\n4\n"
    assert mapped.mknod.code


def test_device_of_the_config(mapped):
    """A device of the config's is there too."""
    assert mapped.device.out.startswith("a:c8:")


def test_own_output_can_be_opened(mapped):
    """A program opens its standard output by name."""
    assert mapped.stdout.code == 0


def test_root_rules_its_namespaces(mapped):
    """The other namespaces belong to the user namespace: names, mounts and low ports are its."""
    assert mapped.name.out == "changed\n"
    assert mapped.mount.out == "x\n"
    assert int(mapped.low.out) >= 1
    assert "lo" in mapped.sysfs.out.split()


def test_network_parameters(mapped):
    """Parameters of its network are set; those of the kernel are not its own."""
    assert mapped.forward.out == "1\n"
    assert mapped.kernel.code


def test_limits_above_the_usual(mapped):
    """A limit is set that its root could not raise itself."""
    assert mapped.limit.out == "8192\n"
    assert mapped.score.out == "5\n"


@pytest.fixture(scope="module")
def stays(suite):
    """A container in a user namespace that stays, with a control group it may write."""
    spec = mapped_config(
        "sleep", "100000", mounts=[WRITABLE], process=NET_ADMIN,
        linux={"namespaces": [*namespaces(), {"type": "user"}, {"type": "cgroup"}]},
    )  # fmt: skip
    container = suite.container(spec)
    try:
        give(suite, container)
        container.create().ok()
        container.start().ok()
        yield container
    finally:
        suite._remove(container)


def test_exec_joins(stays):
    """What is added has the map, and users of it."""
    assert stays.sh("cat /proc/self/uid_map").split() == ["0", "100000", "65536"]
    user = {"args": ["/bin/id"], "cwd": "/", "user": {"uid": 12, "gid": 13, "additionalGids": [14]}}
    with stays.spawn(user) as process:
        assert process.wait() == 0
    assert "uid=12" in process.out
    assert "gid=13" in process.out
    assert "14" in process.out.partition("groups=")[2]


def test_exec_opens_its_output(stays):
    """A program that is added opens its standard output by name."""
    process = {"args": ["sh", "-c", "echo by name >/dev/stdout"], "cwd": "/",
               "env": ["PATH=/bin"], "user": {"uid": 12, "gid": 13}}  # fmt: skip
    with stays.spawn(process) as added:
        assert added.wait() == 0
    assert added.out == "by name\n"


def test_map_behind_the_pid(stays):
    """Who looks at the container's process on the host finds its map."""
    def seen() -> str:
        with open(f"/proc/{stays.pid}/uid_map", encoding="ascii") as file:
            return file.read()

    eventually(lambda: seen().split() == ["0", "100000", "65536"], "the map")


@pytest.mark.skipif(
    not os.path.exists("/sys/fs/cgroup/cgroup.controllers") and "RUNTIME" in os.environ,
    reason="version 1's groups are not handed over",
)
def test_control_group_is_its_own(stays):
    """A control group that it may write belongs to its root."""
    assert stays.sh("mkdir /sys/fs/cgroup/below && rmdir /sys/fs/cgroup/below && echo done")


def test_namespace_is_joined(suite):
    """A container joins the user namespace of another one of its sandbox."""
    name = suite.name()
    first = mapped_config("sleep", "100000", annotations={POD: "sandbox", SANDBOX: name})
    container = suite.container(first, name)
    try:
        give(suite, container)
        container.create().ok()
        container.start().ok()
        own = os.stat("/proc/self/ns/user").st_ino
        path = f"/proc/{container.pid}/ns/user"
        eventually(lambda: os.stat(path).st_ino != own, "the namespace")
        spec = config(
            linux={"namespaces": [*namespaces(network=f"/proc/{container.pid}/ns/net",
                                              ipc=f"/proc/{container.pid}/ns/ipc"),
                                  {"type": "user", "path": path}],
                   "uidMappings": MAP, "gidMappings": MAP},
            annotations={POD: "container", SANDBOX: name},
        )  # fmt: skip
        found = suite.ask(
            spec, prepare=lambda c: give(suite, c), same="readlink /proc/self/ns/user",
            low="nc -l -p 80 -w 1 -e true 2>/dev/null & sleep 0.3; grep -c :0050 /proc/net/tcp6",
        )  # fmt: skip
        assert found.facts.uid_map.split() == ["0", "100000", "65536"]
        assert found.same.out == container.sh("readlink /proc/self/ns/user")
        assert int(found.low.out) >= 1
    finally:
        suite._remove(container)


def test_terminal(suite):
    """A terminal works, and belongs to the user of the process."""
    from conformance.console import Console

    spec = mapped_config("sh", "-c", "stat -c %u $(tty); echo >/dev/console")
    spec["process"]["terminal"] = True
    container = suite.container(spec)
    with Console(suite.folder()) as console:
        try:
            give(suite, container)
            container.create("--console-socket", console.path).ok()
            console.accept()
            container.start().ok()
            console.expect(b"0\r\n")
            container.wait()
        finally:
            suite._remove(container)


def test_map_is_needed(suite):
    """A user namespace without maps is refused."""
    spec = mapped_config("true", linux={"uidMappings": None, "gidMappings": None})
    suite.refused(spec)


@pytest.mark.needs("rootless")
def test_rootless_spec_runs(suite):
    """What spec --rootless writes runs as it is, but for its terminal."""
    import json

    folder = suite.folder()
    suite.runtime("spec", "--rootless", "--bundle", folder).ok()
    with open(f"{folder}/config.json", encoding="utf-8") as file:
        spec = json.load(file)
    spec["process"].update(terminal=False, args=["cat", "/proc/self/uid_map"])
    assert suite.done(spec).out.split() == ["0", "0", "1"]


# id-mapped mounts


def id_mapped(folder: str, *options: str, **own) -> dict:
    """A bind mount that maps ids."""
    return {**bind(folder, "/mapped", "rbind", "rw", *options), **own}


@pytest.mark.needs("idmap")
def test_id_mapped_mount(suite):
    """By its own maps a mount shows owners as others, both ways; its files keep theirs."""
    folder = open_folder(suite)
    with open(f"{folder}/old", "w", encoding="ascii"):
        os.chown(f"{folder}/old", 3, 4)
    maps = [{"containerID": 0, "hostID": 1000, "size": 100}]
    mount = id_mapped(folder, uidMappings=maps, gidMappings=maps)
    found = suite.ask(
        config(mounts=(mount,), process={"user": {"uid": 1007, "gid": 1008}}),
        old="stat -c %u:%g /mapped/old",
        new="touch /mapped/new && stat -c %u:%g /mapped/new",
    )
    assert found.old.out == "1003:1004\n"
    assert found.new.out == "1007:1008\n"
    new = os.stat(f"{folder}/new")
    assert (new.st_uid, new.st_gid) == (7, 8)


@pytest.mark.needs("idmap")
def test_id_mapped_mount_of_the_container(suite):
    """With "idmap" the map is the container's: files on the host have the ids of the inside."""
    folder = open_folder(suite)
    found = suite.ask(
        mapped_config(mounts=[id_mapped(folder, "idmap")]),
        prepare=lambda container: give(suite, container),
        new="touch /mapped/new && chown 5:6 /mapped/new && stat -c %u:%g /mapped/new",
    )
    assert found.new.out == "5:6\n"
    new = os.stat(f"{folder}/new")
    assert (new.st_uid, new.st_gid) == (5, 6)


@pytest.mark.needs("idmap")
def test_id_map_of_a_kernel_file_system_is_refused(suite):
    """What cannot be mapped is refused, naming the mount."""
    maps = [{"containerID": 0, "hostID": 1000, "size": 100}]
    mount = {**bind("/proc/sys", "/mapped"), "uidMappings": maps, "gidMappings": maps}
    suite.refused(config("true", mounts=(mount,))).refused("/mapped")
