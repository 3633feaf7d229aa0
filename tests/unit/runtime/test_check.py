"""What ``kata check`` finds, on hosts made up for it."""

import functools
import json
import os

import pytest

from kata.config.settings import build
from kata.errors import HostError
from kata.runtime import check
from kata.runtime.check import Check, Host
from kata.storage import virtiofsd


@pytest.fixture
def host(tmp_path):
    """A made-up host with everything in place."""
    proc = tmp_path / "proc"
    (proc / "self/ns").mkdir(parents=True)
    for name in ("mnt", "pid", "net", "ipc", "uts", "cgroup", "user"):
        (proc / "self/ns" / name).touch()
    (proc / "sys/kernel/seccomp").mkdir(parents=True)
    (proc / "sys/kernel/seccomp/actions_avail").write_text("kill errno user_notif allow\n")
    (proc / "mounts").write_text("cgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n")
    (proc / "meminfo").write_text("MemTotal: 2048000 kB\nMemAvailable: 1048576 kB\n")
    (tmp_path / "dev/net").mkdir(parents=True)
    (tmp_path / "dev/net/tun").touch()
    return Host(proc=str(proc), dev=str(tmp_path / "dev"), uid=0)


def config(tmp_path, **groups):
    roots = {"state_root": str(tmp_path / "run"), "data_root": str(tmp_path / "data")}
    return build({**groups, "runtime": {**roots, **groups.get("runtime", {})}})


def one(name, settings, host):
    """One check by name."""
    return check._guarded(name, dict(check._CHECKS)[name], settings, host)


def test_a_good_host(tmp_path, host):
    """On a host with everything every check of the host itself passes."""
    settings = config(tmp_path)
    for name in (
        "root", "architecture", "namespaces", "state directory", "memory", "libseccomp",
        "seccomp notification", "cgroups", "tun",
    ):  # fmt: skip
        assert one(name, settings, host).ok, name


def test_not_root(tmp_path, host):
    """Without root nothing runs, and the command that mends it is named."""
    found = one("root", config(tmp_path), Host(uid=1000))
    assert (found.ok, found.required, found.found) == (False, True, "running as user 1000")
    assert "sudo" in found.mend


def test_missing_namespaces(tmp_path, host):
    """A kernel without a kind of namespace is named with the kind."""
    os.unlink(f"{host.proc}/self/ns/uts")
    found = one("namespaces", config(tmp_path), host)
    assert (found.ok, found.why) == (False, "the kernel has none of kind uts")


def test_little_memory(tmp_path, host):
    """Too little memory is told in numbers."""
    settings = config(tmp_path, hypervisor={"default_memory": 4096})
    found = one("memory", settings, host)
    assert not found.ok
    assert found.found == "1024 MiB available, a machine takes up to 4096"


@pytest.mark.parametrize(
    ("mounts", "ok", "found"),
    [
        ("c /sys/fs/cgroup cgroup2 rw 0 0\n", True, "version 2 at /sys/fs/cgroup"),
        (
            "c /a cgroup rw 0 0\nc /b cgroup rw 0 0\nd /c cgroup2 rw 0 0\n",
            True,
            "version 1, 2 hier",
        ),
        ("tmpfs / tmpfs rw 0 0\n", False, "none mounted"),
    ],
)
def test_cgroups(tmp_path, host, mounts, ok, found):
    """Both versions of cgroups will do, a mixture counts as the old one, none is a warning."""
    with open(f"{host.proc}/mounts", "w") as file:
        file.write(mounts)
    result = one("cgroups", config(tmp_path), host)
    assert (result.ok, result.required) == (ok, False)
    assert result.found.startswith(found)


def test_what_is_less_but_not_fatal(tmp_path, host):
    """No notification and no TUN take something away, and say what; containers still run."""
    with open(f"{host.proc}/sys/kernel/seccomp/actions_avail", "w") as file:
        file.write("kill errno allow\n")
    os.unlink(f"{host.dev}/net/tun")
    done = [one(n, config(tmp_path), host) for n in ("seccomp notification", "tun")]
    assert [d.ok for d in done] == [False, False]
    assert "copy of the template's memory" in done[0].why
    assert done[1].mend == "modprobe tun"
    assert check.can_run(done)


def test_directories(tmp_path, host):
    """A directory may be missing where it can be made; a file in the way is told."""
    settings = config(tmp_path)
    assert one("data directory", settings, host).ok
    assert not os.path.exists(tmp_path / "data")
    (tmp_path / "data").write_text("")
    found = one("data directory", settings, host)
    assert (found.ok, "is not a directory" in found.why) == (False, True)
    readonly = config(tmp_path, runtime={"state_root": "/proc/kata"})
    found = one("state directory", readonly, host)
    assert not found.ok or os.access("/proc", os.W_OK)


def test_a_full_disk(tmp_path, host, monkeypatch):
    """Too little room for data is told with what is there."""
    monkeypatch.setattr(check, "_SPACE_NEEDED", 1 << 60)
    found = one("data directory", config(tmp_path), host)
    assert not found.ok
    assert "MiB free" in found.found


def test_unreadable_facts_are_failed_checks(tmp_path):
    """A check that cannot read what it needs fails, and the others go on."""
    found = one("memory", config(tmp_path), Host(proc="/nonexistent"))
    assert (found.ok, found.why.startswith("could not be checked")) == (False, True)


def test_tools(tmp_path, host, monkeypatch):
    """A missing tool names its package and what is lost without it."""
    monkeypatch.setattr("kata.config.locate._SEARCH", "/nonexistent")
    monkeypatch.setenv("PATH", "/nonexistent")
    found = one("skopeo", config(tmp_path), host)
    assert (found.ok, found.required, found.mend) == (False, False, "apt-get install skopeo")


def fake_qemu(tmp_path, version, devices, boards="pc  Standard PC\n"):
    """A program that answers as QEMU does."""
    path = tmp_path / "qemu"
    listed = "".join(f'name "{d}", bus PCI\n' for d in devices)
    path.write_text(
        f'#!/bin/sh\ncase "$1" in --version) echo "{version}";; -device) cat <<E\n{listed}E\n;;\n'
        f"-M) cat <<E\nSupported machines are:\n{boards}E\n;; esac\n"
    )
    path.chmod(0o755)
    return str(path)


ALL_DEVICES = (*check._DEVICES, "vhost-user-fs-pci", "virtio-9p-pci")
GOOD = "QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7)"


@pytest.mark.parametrize(
    ("version", "devices", "boards", "ok", "why"),
    [
        (GOOD, ALL_DEVICES, "pc  x\n", True, ""),
        ("QEMU emulator version 5.2.0", ALL_DEVICES, "pc x\n", False, "older than 7.2"),
        ("mongoose 1.0", ALL_DEVICES, "pc x\n", False, "does not tell a version"),
        (GOOD, ALL_DEVICES[1:], "pc x\n", False, 'it lacks device "virtio-serial-pci"'),
        (GOOD, ALL_DEVICES, "q35 x\n", False, 'it lacks machine type "pc"'),
    ],
)
def test_qemu(tmp_path, host, monkeypatch, *, version, devices, boards, ok, why):
    """QEMU is asked for its version, its devices and its boards."""
    program = fake_qemu(tmp_path, version, devices, boards)
    monkeypatch.setattr("kata.hypervisors.qemu.probe.locate", lambda configured: configured)
    found = one("qemu", config(tmp_path, hypervisor={"path": program}), host)
    assert found.ok is ok, found
    assert why in found.why
    assert program in found.found


def test_no_qemu(tmp_path, host, monkeypatch):
    """Without QEMU the package is named."""

    def locate(_configured):
        raise HostError("QEMU was not found")

    monkeypatch.setattr("kata.hypervisors.qemu.probe.locate", locate)
    found = one("qemu", config(tmp_path), host)
    assert (found.ok, found.mend) == (False, "apt-get install qemu-system-x86")


def test_no_guest_image(tmp_path, host):
    """Without a guest image there is nothing to try an accelerator with; the command is named."""
    missing = config(tmp_path, runtime={"guest_image": str(tmp_path / "none")})
    image, accelerator = (one(n, missing, host) for n in ("guest image", "accelerator"))
    assert (image.ok, image.mend) == (False, "kata guest build")
    assert (accelerator.ok, accelerator.tried) == (False, False)
    assert accelerator.why == "not tried without guest image"


def test_no_accelerator_without_qemu(tmp_path, host):
    """Of a program that is no QEMU it is said what to do, and nothing is tried with it."""
    settings = config(tmp_path, hypervisor={"path": "/bin/true"})
    qemu, accelerator = (one(n, settings, host) for n in ("qemu", "accelerator"))
    assert "set path" in qemu.mend
    assert (accelerator.ok, accelerator.tried) == (False, False)
    assert "qemu" in accelerator.why


def test_the_daemon(tmp_path, host):
    """Without a daemon volumes are lost where it is demanded, unless no share is wanted."""
    wanted = {"daemon": "/nonexistent/virtiofsd", "kind": "virtio-fs"}
    found = one("file share", config(tmp_path, shared_fs=wanted), host)
    assert (found.ok, found.required) == (False, False)
    assert "volumes and --rootfs cannot be used" in found.why
    assert found.mend.startswith('correct virtio_fs_daemon = "/nonexistent/virtiofsd"')
    assert one("file share", config(tmp_path, shared_fs={"kind": "none"}), host).ok


def test_no_daemon_anywhere(tmp_path, host, monkeypatch):
    """Where none was named either, a package is what is missing."""
    find = functools.partial(virtiofsd.find, places=())
    monkeypatch.setattr(virtiofsd, "find", find)
    found = one("file share", config(tmp_path, shared_fs={"kind": "virtio-fs"}), host)
    assert (found.ok, found.mend.startswith("apt-get install ")) == (False, True)


OLD, NEW = GOOD, "QEMU emulator version 10.0.2"


@pytest.mark.parametrize(("version", "lacks"), [(OLD, True), (NEW, False)])
def test_qemu_serves_files_where_no_daemon_does(tmp_path, host, *, version, lacks):
    """Left to itself, it says once that QEMU does it, what that means, and what mends it."""
    qemu = {"path": fake_qemu(tmp_path, version, ALL_DEVICES)}
    none = config(tmp_path, shared_fs={"daemon": "/nonexistent/virtiofsd"}, hypervisor=qemu)
    found = one("file share", none, host)
    assert (found.ok, found.required, found.found) == (False, False, "QEMU itself")
    assert '"/nonexistent/virtiofsd" is not a program' in found.why
    assert "so QEMU serves by 9p, which then has rights over files" in found.why
    assert ("makes no sockets" in found.why) is lacks
    assert "virtio_fs_daemon" in found.mend
    chosen = one("file share", config(tmp_path, shared_fs={"kind": "virtio-9p"}), host)
    assert chosen.ok
    assert "rights over files" in chosen.found


@pytest.mark.parametrize(
    ("kind", "device"), [("virtio-fs", "vhost-user-fs-pci"), ("virtio-9p", "virtio-9p-pci")]
)
def test_a_share_needs_its_device(tmp_path, host, kind, device):
    """Of QEMU only that device is asked for which serves the share."""
    for devices, ok in ((check._DEVICES, False), ((*check._DEVICES, device), True)):
        program = fake_qemu(tmp_path, GOOD, devices)
        settings = config(tmp_path, hypervisor={"path": program}, shared_fs={"kind": kind})
        found = one("qemu", settings, host)
        assert found.ok is ok, found
        assert ok or f'device "{device}"' in found.why


def test_the_document():
    """The result has a JSON form with every field; what is required decides."""
    done = [Check("a", ok=True, found="x"), Check("b", ok=False, required=False)]
    text = json.loads(json.dumps(check.document(done)))
    assert text["can_run"] is True
    assert text["checks"][1] == {
        "name": "b", "ok": False, "found": "", "why": "", "mend": "", "required": False,
        "tried": True,
    }  # fmt: skip
    assert not check.can_run([Check("c", ok=False)])


def test_versions():
    """Only QEMU's own words count as its version."""
    assert check.qemu_version(GOOD) == (7, 2, 22)
    assert check.qemu_version("QEMU emulator version 10.0.2") == (10, 0, 2)
    for text in ("", "QEMU emulator version ", "x QEMU emulator version 7.2", "QEMU 7.2"):
        assert check.qemu_version(text) == ()
