"""Mounts: what is mounted where, with which options, in which order, and what is seen there."""

import os
import subprocess
from types import SimpleNamespace

import pytest

from conformance.bundle import CGROUP, bind, config, tmpfs
from conformance.container import eventually
from conformance.facts import mount, mounts

MANY = 40  # binds at once, as a pod with many volumes has


def write(path: str, text: str = "host\n") -> str:
    """A file on the host."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    return path


def prepare(folder: str) -> None:
    """What is bound into the container."""
    for name in ("rw", "ro", "rec", "order/deep", "owner", "exec", "relative", "many"):
        os.makedirs(f"{folder}/{name}")
    for name in ("rw/file", "ro/file", "order/file", "order/deep/file", "single", "alone"):
        write(f"{folder}/{name}")
    for number in range(MANY):
        write(f"{folder}/many/{number}", f"{number}\n")
    owned = write(f"{folder}/owner/file")
    os.chown(owned, 1234, 5678)
    os.chmod(owned, 0o640)
    os.symlink("file", f"{folder}/owner/link")
    os.link(owned, f"{folder}/owner/hard")
    subprocess.run(["cp", "/bin/busybox", f"{folder}/exec/busybox"], check=True)
    os.chmod(f"{folder}/exec/busybox", 0o4755)


def entries(folder: str) -> tuple[dict, ...]:
    """The mounts of the shared container."""
    binds = (
        bind(f"{folder}/rw", "/rw"),
        bind(f"{folder}/ro", "/ro", "rbind", "ro"),
        bind(f"{folder}/single", "/etc/hostname", "bind", "ro"),
        bind(f"{folder}/alone", "/alone", "bind"),
        bind(f"{folder}/rec", "/rec", "rbind"),
        bind(f"{folder}/rec", "/flat", "bind"),
        bind(f"{folder}/order", "/order", "bind"),
        tmpfs("/order/deep", "size=1m"),
        bind(f"{folder}/single", "/order/deep/inner", "bind"),
        bind(f"{folder}/owner", "/owner", "bind"),
        bind(f"{folder}/exec", "/noexec", "bind", "noexec", "nosuid", "nodev"),
        bind(f"{folder}/exec", "/exec", "bind", "noatime"),
        bind(f"{folder}/rw", "/not/there/yet", "bind"),
        bind(f"{folder}/single", "/not/there/file", "bind"),
        bind(f"{folder}/rw", "/with space", "bind"),
        bind(f"{folder}/rw", "/link/target", "bind"),
        bind(f"{folder}/rw", "/up", "bind"),
        bind("beside", "/beside", "bind"),
        bind(f"{folder}/rw", "no-slash/here", "bind"),
        bind(f"{folder}/single", "/gone/../back", "bind"),
        {"destination": "/typed", "type": "none", "source": f"{folder}/rw",
         "options": ["rbind", "rw"]},
        {"destination": "/untyped", "source": f"{folder}/ro", "options": ["rbind", "ro"]},
    )  # fmt: skip
    memory = (
        tmpfs("memory/no-slash", "size=1m"),
        tmpfs("/mem", "size=2m", "mode=1770", "nosuid", "nodev", "noexec"),
        tmpfs("/mem-ro", "ro", "size=1m"),
        tmpfs("/mem-owned", "uid=1000", "gid=50", "mode=700"),
        bind(f"{folder}/ro", "/covered", "bind"),
        tmpfs("/covered", "size=1m"),
    )
    many = tuple(bind(f"{folder}/many/{n}", f"/many/{n}", "bind", "ro") for n in range(MANY))
    return *binds, *memory, CGROUP, *many


SNIPPETS = {
    "rw": "cat /rw/file && echo guest >/rw/new && cat /rw/new",
    "ro": "cat /ro/file; echo x >/ro/new",
    "ro_remove": "rm /ro/file",
    "file": "cat /etc/hostname; echo x >/etc/hostname",
    "alone": "echo guest >>/alone && cat /alone",
    "rec": "cat /rec/sub/file",
    "flat": "ls -A /flat/sub",
    "order": "cat /order/file; ls /order/deep; cat /order/deep/inner",
    "owner": "stat -c '%u %g %a %h' /owner/file; readlink /owner/link; cat /owner/link",
    "noexec": "/noexec/busybox true",
    "exec": "/exec/busybox true",
    "missing": "cat /not/there/yet/file /not/there/file",
    "space": "cat '/with space/file'",
    "link": "cat /inside/target/file; ls -l /link",
    "up": "cat /etc/caught/file",
    "beside": "cat /beside/file",
    "no_slash": "cat /no-slash/here/file; stat -f -c %T /memory/no-slash",
    "back": "cat /back",
    "types": "cat /typed/file /untyped/file && echo x >/untyped/new",
    "mem": "stat -c %a /mem; dd if=/dev/zero of=/mem/big bs=1024k count=4; stat -c %s /mem/big",
    "mem_ro": "touch /mem-ro/x",
    "mem_owned": "stat -c '%u %g %a' /mem-owned",
    "covered": "ls -A /covered",
    "shm": "echo x >/dev/shm/x && cat /dev/shm/x; stat -c %a /dev/shm",
    "proc": "cat /proc/1/comm; ls -d /proc/[0-9]* | head -1",
    "sysfs": "ls /sys/kernel >/dev/null && mkdir /sys/x",
    "mqueue": "touch /dev/mqueue/q; ls /dev/mqueue",
    "pts": "ls /dev/pts; readlink /dev/ptmx; stat -c %a /dev/pts/ptmx",
    "cgroup": "cd /sys/fs/cgroup; ls | wc -l; mkdir ./$(ls | grep -x memory)/new",
    "many": "cat /many/*",
    "up_and_out": "ls /../../../..",
}


@pytest.fixture(scope="module")
def folder(suite):
    """A directory of the host's, with a mount below it."""
    path = suite.folder()
    prepare(path)
    os.makedirs(f"{path}/rec/sub")
    subprocess.run(["mount", "-t", "tmpfs", "sub", f"{path}/rec/sub"], check=True)
    write(f"{path}/rec/sub/file")
    yield path
    subprocess.run(["umount", "-l", f"{path}/rec/sub"], check=True)


@pytest.fixture(scope="module")
def mounted(suite, folder):
    """A container with mounts of every kind, asked about each."""

    def prepare(container):
        os.mkdir(f"{container.rootfs}/inside")
        os.symlink("/inside", f"{container.rootfs}/link")
        os.mkdir(f"{container.rootfs}/etc/caught")
        os.symlink("../../../../../../etc/caught", f"{container.rootfs}/up")
        write(f"{container.bundle}/beside/file")

    return suite.ask(config(mounts=entries(folder)), prepare=prepare, **SNIPPETS)


def test_bind_reads_and_writes(mounted, folder):
    """A bind mount is the host's directory, both ways."""
    assert mounted.rw.out == "host\nguest\n"
    with open(f"{folder}/rw/new", encoding="utf-8") as file:
        assert file.read() == "guest\n"


def test_relative_destination(mounted):
    """A destination without its first slash begins at the root."""
    assert mounted.no_slash.out == "host\ntmpfs\n"


def test_destination_that_goes_back(mounted):
    """Up from what is not there is what it would be in."""
    assert mounted.back.out == "host\n"


def test_bind_read_only(mounted):
    """With ro what is there can be read, and nothing written."""
    assert mounted.ro.out.startswith("host\n")
    assert "Read-only file system" in mounted.ro.out


def test_bind_read_only_keeps_files(mounted):
    """Nor can anything be removed."""
    assert "Read-only file system" in mounted.ro_remove.out


def test_bind_of_a_file(mounted):
    """One file over another, as engines mount /etc/hostname; read-only holds for it too."""
    assert mounted.file.out.startswith("host\n")
    assert "Read-only file system" in mounted.file.out


def test_bind_of_a_file_is_written_through(mounted, folder):
    """A file that is bound is the host's."""
    assert mounted.alone.out == "host\nguest\n"
    with open(f"{folder}/alone", encoding="utf-8") as file:
        assert file.read() == "host\nguest\n"


def test_rbind_takes_mounts_along(mounted):
    """rbind shows what is mounted below the source."""
    assert mounted.rec.out == "host\n"


def test_bind_leaves_mounts_behind(mounted):
    """bind does not."""
    assert (mounted.flat.code, mounted.flat.out) == (0, "")


def test_mounts_nest_in_order(mounted):
    """A later mount lies in an earlier one, and covers what was there."""
    assert mounted.order.out == "host\ninner\nhost\n"


def test_later_mount_covers(mounted):
    """Two mounts on one place: the later is seen."""
    assert (mounted.covered.code, mounted.covered.out) == (0, "")


def test_owner_mode_and_links(mounted):
    """Owner, mode, link count and symbolic links are the host's."""
    assert mounted.owner.out == "1234 5678 640 2\nfile\nhost\n"


def test_noexec(mounted):
    """noexec forbids to run what is there."""
    assert "ermission denied" in mounted.noexec.out
    assert mounted.noexec.code == 126


def test_exec_is_the_default(mounted):
    """Without it programs of a volume run."""
    assert mounted.exec.code == 0


@pytest.mark.parametrize("option", ["noexec", "nosuid", "nodev"])
def test_flags_of_a_bind(mounted, option):
    """Each flag shows in the mount table."""
    assert option in mount(mounted.facts, "/noexec")["options"]


def test_noatime(mounted):
    """noatime shows in the mount table."""
    assert "noatime" in mount(mounted.facts, "/exec")["options"]


def test_missing_places_are_made(mounted):
    """Directories and a file are made where the root file system has none."""
    assert mounted.missing.out == "host\nhost\n"


def test_place_with_a_space(mounted):
    """A destination may have a space in it."""
    assert mounted.space.out == "host\n"


def test_symlink_on_the_way_stays_in_the_root(mounted):
    """An absolute link in a destination is followed inside the root file system."""
    assert mounted.link.out.startswith("host\n")


def test_symlink_upwards_stays_in_the_root(mounted):
    """A relative link that climbs ends at the root file system's top."""
    assert mounted.up.out == "host\n"
    assert not os.path.exists("/etc/caught")


def test_relative_source(mounted):
    """A relative source is below the bundle."""
    assert mounted.beside.out == "host\n"


def test_type_of_a_bind_is_ignored(mounted):
    """Type none, or none at all, with a bind option is a bind mount."""
    assert mounted.types.out.startswith("host\nhost\n")
    assert mounted.types.code != 0


def test_tmpfs_size(mounted):
    """size is a limit."""
    assert "No space left" in mounted.mem.out
    assert mounted.mem.out.endswith("2097152\n")


def test_tmpfs_mode(mounted):
    """mode is the mode of its root."""
    assert mounted.mem.out.startswith("1770\n")


def test_tmpfs_flags(mounted):
    """Flags of a tmpfs show in the mount table."""
    assert {"nosuid", "nodev", "noexec"} <= set(mount(mounted.facts, "/mem")["options"])


def test_tmpfs_read_only(mounted):
    """A tmpfs can be read-only."""
    assert "Read-only file system" in mounted.mem_ro.out


def test_tmpfs_owner(mounted):
    """uid and gid own its root."""
    assert mounted.mem_owned.out == "1000 50 700\n"


def test_shared_memory(mounted):
    """/dev/shm is a tmpfs that everyone can write to."""
    assert mounted.shm.out == "x\n1777\n"


def test_proc_is_the_container(mounted):
    """/proc is that of the container's pid namespace."""
    assert mounted.proc.out == "probe\n/proc/1\n"


def test_sysfs_is_read_only(mounted):
    """/sys is there and cannot be written."""
    assert mount(mounted.facts, "/sys")["type"] == "sysfs"
    assert mounted.sysfs.code != 0


def test_mqueue(mounted):
    """A message queue file system of the container's own."""
    assert mount(mounted.facts, "/dev/mqueue")["type"] == "mqueue"
    assert mounted.mqueue.out == "q\n"


def test_devpts_is_new(mounted):
    """/dev/pts is an instance of its own, and /dev/ptmx leads to it."""
    assert mounted.pts.out == "ptmx\npts/ptmx\n666\n"


def test_cgroup_is_mounted_read_only(mounted):
    """A cgroup mount shows groups, read-only."""
    assert int(mounted.cgroup.out.split()[0]) > 0
    assert "Read-only file system" in mounted.cgroup.out


def test_many_mounts(mounted):
    """Forty volumes at once."""
    assert mounted.many.out == "".join(f"{n}\n" for n in sorted(range(MANY), key=str))


def test_no_way_out_of_the_root(mounted):
    """Upwards from / is /."""
    assert "bin" in mounted.up_and_out.out.split()
    assert "boot" not in mounted.up_and_out.out.split()


def test_no_mount_of_the_host_is_seen(mounted):
    """Every mount in the table hangs below the container's root."""
    table = mounts(mounted.facts)
    ids = {entry["id"] for entry in table}
    assert [e["point"] for e in table if e["parent"] not in ids] == ["/"]


@pytest.fixture(scope="module")
def propagating(suite):
    """A container that goes on, with one source mounted by every kind of propagation."""
    base = suite.folder()
    subprocess.run(["mount", "--bind", base, base], check=True)
    subprocess.run(["mount", "--make-shared", base], check=True)
    for name in ("private", "slave", "shared"):
        os.mkdir(f"{base}/{name}")
    try:
        binds = tuple(
            bind(f"{base}/{name}", f"/{name}", "rbind", f"r{name}")
            for name in ("private", "slave", "shared")
        )
        # engines widen the root's propagation where a volume asks for it
        spec = config("sleep", "100000", mounts=binds, linux={"rootfsPropagation": "rslave"})
        with suite.running(spec) as container:
            table = container.sh("cat /proc/self/mountinfo")
            yield container, base, SimpleNamespace(mountinfo=table)
    finally:
        subprocess.run(["umount", "-R", "-l", base], check=True)


def test_private_propagation(propagating):
    """rprivate: the mount belongs to no peer group."""
    assert mount(propagating[2], "/private")["optional"] == []


def test_slave_propagation(propagating):
    """rslave: the mount receives from a master."""
    assert mount(propagating[2], "/slave")["optional"][0].startswith("master:")


def test_shared_propagation(propagating):
    """rshared: the mount has peers."""
    assert mount(propagating[2], "/shared")["optional"][0].startswith("shared:")


def test_mounts_of_the_host_arrive_by_slave(propagating):
    """What the host mounts below the source later is seen in the container."""
    container, base, _ = propagating
    os.makedirs(f"{base}/slave/late", exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "late", f"{base}/slave/late"], check=True)
    write(f"{base}/slave/late/file")
    eventually(lambda: container.exec("--", "cat", "/slave/late/file").code == 0, "it", 5)


def test_mounts_of_the_host_do_not_arrive_by_private(propagating):
    """With rprivate they are not."""
    container, base, _ = propagating
    os.makedirs(f"{base}/private/late", exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "late", f"{base}/private/late"], check=True)
    write(f"{base}/private/late/file")
    assert container.exec("--", "cat", "/private/late/file").code


def test_changes_on_the_host_are_seen(propagating):
    """A file that the host writes while the container runs is there at once, and again changed."""
    container, base, _ = propagating
    for text in ("first\n", "a second, longer\n"):
        write(f"{base}/private/news", text)
        assert container.sh("cat /private/news") == text
    os.rename(write(f"{base}/private/other", "renamed\n"), f"{base}/private/news")
    assert container.sh("cat /private/news") == "renamed\n"


def test_configuration_that_is_swapped(suite):
    """A read-only directory as kubelet makes it: the swapped link is seen, owners stay."""
    folder = suite.folder()

    def swap(version: str) -> None:
        os.chown(write(f"{folder}/..{version}/key", f"{version}\n"), 1234, 5678)
        os.symlink(f"..{version}", f"{folder}/..data_tmp")
        os.rename(f"{folder}/..data_tmp", f"{folder}/..data")

    swap("first")
    os.symlink("..data/key", f"{folder}/key")
    spec = config("sleep", "100000", mounts=(bind(folder, "/config", "rbind", "ro"),))
    with suite.running(spec) as container:
        words = "cat /config/key; stat -Lc %u:%g /config/key; touch /config/x 2>&1 || echo shut"
        assert container.sh(words).split()[:2] == ["first", "1234:5678"]
        assert container.sh(words).split()[-1] == "shut"
        for version in ("second", "third"):
            swap(version)
            eventually(
                lambda v=version: container.sh("cat /config/key") == f"{v}\n", "the new one", 5
            )


@pytest.mark.needs("rro")
def test_recursive_read_only(suite, folder):
    """rro makes what is mounted below read-only too."""
    spec = config(mounts=(bind(f"{folder}/rec", "/rec", "rbind", "rro"),))
    found = suite.ask(spec, write="touch /rec/sub/x")
    assert "Read-only file system" in found.write.out


def test_missing_source_is_refused(suite):
    """A bind mount of what is not there is an error that names it."""
    spec = config("true", mounts=(bind("/nowhere/at/all", "/x"),))
    suite.refused(spec).refused("/nowhere/at/all")


def test_unknown_type_is_refused(suite):
    """A file system the kernel does not have is an error."""
    entry = {"destination": "/x", "type": "nosuchfs", "source": "x"}
    suite.refused(config("true", mounts=(entry,))).refused("no such device", "nosuchfs", "mount")


def test_unwritable_place_is_refused(suite):
    """A destination that is a file where a directory is mounted is an error."""
    spec = config("true", mounts=(bind(suite.folder(), "/etc/passwd", "bind"),))
    suite.refused(spec).refused("/etc/passwd", "not a directory")


def overlay(folder: str, *options: str) -> dict:
    """A mount entry for an overlay of directories of the host, as Podman's volumes with ":O" are.

    One of them has a colon in its name.
    """
    for name in ("low", "low:er", "upper", "work"):
        os.makedirs(f"{folder}/{name}", exist_ok=True)
    write(f"{folder}/low/file")
    write(f"{folder}/low:er/deep")
    options = tuple(option.replace("@", folder) for option in options)
    return {
        "destination": "/overlay", "type": "overlay", "source": "overlay", "options": list(options)
    }  # fmt: skip


def test_overlay_of_the_host(suite):
    """Its directories are the host's; what is written is in the upper one."""
    folder = suite.folder()
    entry = overlay(
        folder, r"lowerdir=@/low:@/low\:er", "upperdir=@/upper", "workdir=@/work", "private"
    )
    script = "cat /overlay/*; echo new >/overlay/file; rm /overlay/deep; touch /overlay/made; ls -A"
    done = suite.done(config("sh", "-c", script, mounts=(entry,), process={"cwd": "/overlay"}))
    assert done.out.split() == ["host", "host", "file", "made"]
    with open(f"{folder}/low/file", encoding="utf-8") as file:
        assert file.read() == "host\n"
    with open(f"{folder}/upper/file", encoding="utf-8") as file:
        assert file.read() == "new\n"
    assert sorted(os.listdir(f"{folder}/upper")) == ["deep", "file", "made"]


def test_overlay_without_an_upper_directory(suite):
    """It can be read."""
    entry = overlay(suite.folder(), r"lowerdir=@/low:@/low\:er")
    done = suite.done(config("sh", "-c", "cat /overlay/*; touch /overlay/x", mounts=(entry,)))
    assert done.out == "host\nhost\n"
    assert "Read-only file system" in done.err


@pytest.mark.parametrize(
    "options",
    [("lowerdir=@/nowhere:@/low",), ("upperdir=@/upper", "workdir=@/work"),
     ("lowerdir=@/low", "upperdir=@/upper"), ("lowerdir=@/low:@/upper", "nonsense=1")],
    ids=["missing", "nothing-below", "no-work", "unknown"],
)  # fmt: skip
def test_overlay_that_cannot_be(suite, options):
    """A directory that is not there, or one that is needed, is an error that names the overlay."""
    spec = config("true", mounts=(overlay(suite.folder(), *options),))
    suite.refused(spec).refused("overlay")
