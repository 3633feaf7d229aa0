"""The root file system: writable or not, what is hidden and what is protected in it."""

import os

import pytest

from conformance.bundle import bind, config, tmpfs
from conformance.facts import mount

PROTECTED = {
    "maskedPaths": ["/etc/secret", "/masked", "/proc/kcore", "/not/there", "/proc/keys"],
    "readonlyPaths": ["/readonly", "/etc/fixed", "/proc/sys", "/not/there/either"],
}


@pytest.fixture(scope="module")
def protected(suite):
    """A writable root with hidden and protected places."""
    made = {}

    def prepare(container):
        for name in ("masked", "readonly"):
            os.mkdir(f"{container.rootfs}/{name}")
        for name in ("etc/secret", "etc/fixed", "masked/file", "readonly/file"):
            with open(f"{container.rootfs}/{name}", "w", encoding="utf-8") as file:
                file.write("text\n")
        return lambda container: made.update(stat=os.stat(f"{container.rootfs}/new"))

    found = suite.ask(
        config(linux=PROTECTED),
        prepare=prepare,
        masked_file="cat /etc/secret; stat -c %s /etc/secret",
        masked_dir="ls -A /masked",
        masked_write="touch /masked/x",
        masked_kcore="head -c 1 /proc/kcore | wc -c",
        readonly_dir="cat /readonly/file; touch /readonly/x",
        readonly_file="cat /etc/fixed; echo x >/etc/fixed",
        readonly_proc="echo x >/proc/sys/kernel/domainname",
        write="echo new >/new && chown 1000:50 /new && chmod 600 /new",
    )
    found.made = made["stat"]
    return found


@pytest.fixture(scope="module")
def readonly(suite):
    """A root that cannot be written, with a place that can."""
    spec = config(root={"readonly": True}, mounts=(tmpfs("/tmp", "size=1m"),))
    return suite.ask(
        spec, write="touch /x", dev="touch /dev/x", tmp="touch /tmp/x", shm="touch /dev/shm/x"
    )


def test_writable_root_is_the_directory(protected):
    """What the container writes is in the bundle's directory, with its owner and mode."""
    made = protected.made
    assert (made.st_uid, made.st_gid, made.st_mode & 0o7777) == (1000, 50, 0o600)


def test_masked_file_is_empty(protected):
    """A masked file reads as empty."""
    assert "text" not in protected.masked_file.out


def test_masked_directory_is_empty(protected):
    """A masked directory lists nothing."""
    assert (protected.masked_dir.code, protected.masked_dir.out) == (0, "")


def test_masked_directory_is_not_writable(protected):
    """Nor can anything be put there."""
    assert "Read-only file system" in protected.masked_write.out


def test_masked_file_of_proc(protected):
    """A file of /proc is masked as well."""
    assert protected.masked_kcore.out.endswith("0\n")


def test_readonly_directory(protected):
    """A read-only path can be read and not written."""
    assert protected.readonly_dir.out.startswith("text\n")
    assert "Read-only file system" in protected.readonly_dir.out


def test_readonly_file(protected):
    """A single file too."""
    assert protected.readonly_file.out.startswith("text\n")
    assert "Read-only file system" in protected.readonly_file.out


def test_readonly_path_of_proc(protected):
    """/proc/sys too."""
    assert "Read-only file system" in protected.readonly_proc.out


def test_readonly_root(readonly):
    """root.readonly: nothing can be written in it."""
    assert "Read-only file system" in readonly.write.out
    assert "ro" in mount(readonly.facts, "/")["options"]


@pytest.mark.parametrize("place", ["dev", "tmp", "shm"])
def test_mounts_on_a_readonly_root_stay_writable(readonly, place):
    """The mounts in it keep their own options."""
    assert getattr(readonly, place).code == 0


def test_root_is_private_where_asked(suite):
    """rootfsPropagation private: the container's root is in no peer group."""
    facts = suite.ask(config(linux={"rootfsPropagation": "private"})).facts
    assert mount(facts, "/")["optional"] == []


@pytest.mark.parametrize("kind", ["shared", "slave", "rslave"])
def test_root_propagation_is_accepted(suite, kind):
    """What engines ask for where a volume is to propagate is accepted."""
    assert suite.done(config("true", linux={"rootfsPropagation": kind})).code == 0


def test_unknown_root_propagation_is_refused(suite):
    """A word that is none is an error."""
    suite.refused(config("true", linux={"rootfsPropagation": "sideways"})).refused("propagation")


def test_absolute_root(suite):
    """root.path may be absolute."""
    elsewhere = suite.kit.make_rootfs(f"{suite.folder()}/elsewhere")
    with open(f"{elsewhere}/mark", "w", encoding="utf-8") as file:
        file.write("elsewhere\n")
    assert suite.done(config("cat", "/mark", root={"path": elsewhere})).out == "elsewhere\n"


def test_missing_root_is_refused(suite):
    """A root that is not there is an error that names it."""
    suite.refused(config("true", root={"path": "nowhere"})).refused("nowhere", "rootfs")


def test_no_pivot_is_accepted(suite):
    """create --no-pivot works, as for engines on a ramdisk."""
    assert suite.done(config("echo", "here"), "--no-pivot").out == "here\n"


@pytest.mark.needs("no-new-keyring")
def test_no_new_keyring_is_accepted(suite):
    """create --no-new-keyring works."""
    assert suite.done(config("echo", "here"), "--no-new-keyring").out == "here\n"


def test_bind_without_a_source(suite):
    """It is the bundle that is mounted."""
    spec = config("ls", "/bundle/config.json", mounts=(bind("", "/bundle", "bind"),))
    assert suite.done(spec).out == "/bundle/config.json\n"
