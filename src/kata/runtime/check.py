"""What this host can do: a list of checks, each with what was found and what mends it.

The one rule: a check reports, it never raises and changes nothing (but the accelerator's, which
boots a guest for a moment and keeps the answer). A container can run if all required ones pass.
"""

from __future__ import annotations

import os

from kata.errors import HostError, KataError
from kata.wire.record import fields, record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from kata.config.settings import Config

_SPACE_NEEDED = 1 << 30  # bytes of data_root: a template, a guest image, a small image
_DEVICES = (
    "virtio-serial-pci", "virtserialport", "virtio-blk-pci", "virtio-net-pci", "vmgenid",
)  # fmt: skip
_SHARE_DEVICES = {"virtio-fs": ("vhost-user-fs-pci",), "virtio-9p": ("virtio-9p-pci",)}
_NAMESPACES = ("mnt", "pid", "net", "ipc", "uts", "cgroup")
_OLDEST_QEMU = (7, 2)
_SHARE = "file share"
_RIGHTS = "which then has rights over files"
# "9pfs: fix regression regarding CVE-2023-2861" came with it
_MAKES_NODES = (10, 0)
_NO_NODES = "this QEMU makes no sockets, pipes and devices in what is shared (10.0 does)"
_APT = "apt-get install "
_QEMU_PACKAGE = _APT + "qemu-system-x86"


@record
class Check:
    """One check: ``found`` is what is there, ``why`` what is wrong, ``mend`` what to do about it.

    ``required``: without it no container runs; the others take something away, which ``why`` says.
    Not ``tried``: something else is missing that is needed to find out, so ``ok`` says nothing.
    """

    name: str
    ok: bool
    found: str = ""
    why: str = ""
    mend: str = ""
    required: bool = True
    tried: bool = True


@record
class Host:
    """Where facts are read from, so that a test can show another host."""

    proc: str = "/proc"
    dev: str = "/dev"
    uid: int = -1  # -1: who we are


def checks(config: Config, host: Host = Host()) -> list[Check]:  # noqa: B008
    """Every check, in the order in which mending makes sense."""
    return [_guarded(name, check, config, host) for name, check in _CHECKS]


def can_run(done: list[Check]) -> bool:
    """Whether a container can run: all that is required is there."""
    return all(check.ok for check in done if check.required)


def document(done: list[Check]) -> dict[str, Any]:
    """The result as a JSON document."""
    return {"can_run": can_run(done), "checks": [fields(check) for check in done]}


def _guarded(
    name: str, check: Callable[[Config, Host], Check], config: Config, host: Host
) -> Check:
    """A check that fails in an unforeseen way is a failed check."""
    try:
        return check(config, host)
    except KataError as error:
        return Check(name, ok=False, why=str(error), mend=error.hint)
    except (OSError, ValueError) as error:
        return Check(name, ok=False, why=f"could not be checked: {error}")


def _root(_config: Config, host: Host) -> Check:
    uid = os.geteuid() if host.uid < 0 else host.uid
    if uid == 0:
        return Check("root", ok=True, found="running as root")
    return Check(
        "root", ok=False, found=f"running as user {uid}", mend="run it as root: sudo kata check",
        why="devices, namespaces and mounts are made as root; monitors then give it up",
    )  # fmt: skip


def _machine(_config: Config, _host: Host) -> Check:
    machine = os.uname().machine
    if machine == "x86_64":
        return Check("architecture", ok=True, found=machine)
    return Check(
        "architecture", ok=False, found=machine, why="only x86_64 is supported so far",
        mend="use an x86_64 host",
    )  # fmt: skip


def _qemu(config: Config, _host: Host) -> Check:
    from kata.hypervisors.qemu.probe import locate

    try:
        program = locate(config.hypervisor.path)
    except HostError as error:
        return Check("qemu", ok=False, why=str(error), mend=error.hint or _QEMU_PACKAGE)
    text = _output(program, "--version")
    version = qemu_version(text)
    found = f"{program}, version {'.'.join(map(str, version))}" if version else program
    if not version:
        return Check(
            "qemu", ok=False, found=found, why="it does not tell a version as QEMU does",
            mend="set path to QEMU's program in the configuration, or leave it out; "
            + _QEMU_PACKAGE,
        )  # fmt: skip
    if version < _OLDEST_QEMU:
        return Check("qemu", ok=False, found=found, why="older than 7.2", mend=_QEMU_PACKAGE)
    missing = _missing_parts(config, program)
    if missing:
        why = "it lacks " + ", ".join(missing)
        return Check("qemu", ok=False, found=found, why=why, mend=_QEMU_PACKAGE)
    return Check("qemu", ok=True, found=found)


def qemu_version(text: str) -> tuple[int, ...]:
    """The version in what ``--version`` prints; empty if it is not QEMU's."""
    head, mark, rest = text.partition("QEMU emulator version ")
    word = rest.split(maxsplit=1)[0] if mark and not head and rest.strip() else ""
    parts = word.split(".")
    return tuple(int(p) for p in parts) if parts and all(p.isdecimal() for p in parts) else ()


def _missing_parts(config: Config, program: str) -> list[str]:
    """Devices and boards that a virtual machine of ours needs and this QEMU does not list."""
    from kata.storage.choice import chosen

    kind = chosen(config.shared_fs.kind, config.shared_fs.daemon)
    wanted = [*_DEVICES, *_SHARE_DEVICES.get(kind, ())]
    devices = _output(program, "-device", "help")
    missing = [f'device "{d}"' for d in wanted if f'name "{d}"' not in devices]
    boards = {
        line.split(maxsplit=1)[0] for line in _output(program, "-M", "help").splitlines() if line
    }
    if config.hypervisor.machine_type not in boards:
        missing.append(f'machine type "{config.hypervisor.machine_type}"')
    return missing


def _output(*command: str) -> str:
    """What a program prints on standard output, within ten seconds."""
    from subprocess import DEVNULL, PIPE, TimeoutExpired, run

    try:
        done = run(command, stdin=DEVNULL, stdout=PIPE, stderr=DEVNULL, timeout=10)
    except TimeoutExpired:
        raise HostError(
            f'"{command[0]}" does not answer', why="ten seconds were not enough"
        ) from None
    return done.stdout.decode(errors="replace")


def _guest_image(config: Config, _host: Host) -> Check:
    from kata.runtime import guest_image
    from kata.wire.agent_api import api_hash

    try:
        image = guest_image.find(config.runtime.guest_image, config.runtime.data_root)
    except HostError as error:
        mend = error.hint or "kata guest build"
        return Check("guest image", ok=False, why=str(error), mend=mend)
    found = f"{image.directory}, kernel {image.kernel_release}"
    if image.api_hash != api_hash():
        return Check(
            "guest image", ok=False, found=found, mend="kata guest build",
            why=f"its agent speaks {image.api_hash}, this version {api_hash()}",
        )  # fmt: skip
    return Check("guest image", ok=True, found=found)


def _accelerator(config: Config, host: Host) -> Check:
    from kata.runtime import guest_image
    from kata.runtime.machines import accelerate, describe

    node = f"{host.dev}/kvm is " + ("there" if os.path.exists(f"{host.dev}/kvm") else "missing")
    settings = config.hypervisor
    needed = (("qemu", _qemu), ("guest image", _guest_image), ("memory", _memory))
    lacking = [name for name, check in needed if not _guarded(name, check, config, host).ok]
    if lacking:
        why = f"not tried without {' and '.join(lacking)}"
        return Check("accelerator", ok=False, found=node, why=why, tried=False)
    try:
        image = guest_image.find(config.runtime.guest_image, config.runtime.data_root)
        machine = describe(
            config, image, vcpus=settings.default_vcpus, memory_mib=settings.default_memory
        )
        launch = accelerate(machine, config, image.kernel_release, prove=True)
    except KataError as error:
        return Check("accelerator", ok=False, found=node, why=str(error), mend=error.hint)
    chosen = launch.machine.accelerator
    return Check("accelerator", ok=True, found=f"{chosen}: {launch.reason}")


def _share(config: Config, _host: Host) -> Check:
    """Who serves directories of the host."""
    from kata.storage import virtiofsd
    from kata.storage.choice import NONE, VIRTIO_9P, chosen

    settings = config.shared_fs
    if settings.kind == NONE:
        return Check(_SHARE, ok=True, found="not needed: shared_fs is none", required=False)
    if settings.kind == VIRTIO_9P:
        return Check(
            _SHARE, ok=True, required=False,
            found=f"QEMU itself, {_RIGHTS}: shared_fs is virtio-9p{_nine_lacks(config)}",
        )  # fmt: skip
    try:
        program = virtiofsd.find(settings.daemon)
        kind = virtiofsd.kind_of(program)
    except HostError as error:
        mend = _daemon_package()
        if settings.daemon:
            mend = f'correct virtio_fs_daemon = "{settings.daemon}" in the configuration'
        if chosen(settings.kind, settings.daemon) == VIRTIO_9P:
            return Check(
                _SHARE, ok=False, found="QEMU itself", required=False, mend=mend,
                why=f"{error}; so QEMU serves by 9p, {_RIGHTS}{_nine_lacks(config)}",
            )  # fmt: skip
        return Check(
            _SHARE, ok=False, required=False, mend=mend,
            why=f"{error}; volumes and --rootfs cannot be used",
        )  # fmt: skip
    return Check(_SHARE, ok=True, found=f"{program} ({kind})", required=False)


def _nine_lacks(config: Config) -> str:
    """What a QEMU that serves files cannot do, by its version: for the end of a sentence."""
    from kata.hypervisors.qemu.probe import locate

    try:
        version = qemu_version(_output(locate(config.hypervisor.path), "--version"))
    except HostError:
        return ""
    return f"; {_NO_NODES}" if version and version < _MAKES_NODES else ""


def _daemon_package() -> str:
    """Debian 12 has the daemon among QEMU's common files, later ones in a package of its own."""
    try:
        with open("/etc/debian_version", encoding="utf-8") as file:
            old = file.read().startswith(("11", "12"))
    except OSError:
        old = False
    return _APT + ("qemu-system-common" if old else "virtiofsd")


def _tool(name: str, program: str, package: str, lost: str) -> Callable[[Config, Host], Check]:
    def check(_config: Config, _host: Host) -> Check:
        from kata.config.locate import program as locate

        path = locate(program)
        if path:
            return Check(name, ok=True, found=path, required=False)
        return Check(name, ok=False, why=lost, mend=_APT + package, required=False)

    return check


def _libseccomp(_config: Config, _host: Host) -> Check:
    from kata.linux.libseccomp import version

    try:
        return Check("libseccomp", ok=True, found=f"version {version()}")
    except HostError as error:
        return Check("libseccomp", ok=False, why=str(error), mend=error.hint)


def _state_root(config: Config, _host: Host) -> Check:
    return _writable("state directory", config.runtime.state_root, "state_root")


def _data_root(config: Config, _host: Host) -> Check:
    path = config.runtime.data_root
    check = _writable("data directory", path, "data_root")
    status = os.statvfs(_existing(path))
    free = status.f_bavail * status.f_frsize
    found = f"{check.found}, {free >> 20} MiB free"
    if check.ok and free < _SPACE_NEEDED:
        return Check(
            check.name, ok=False, found=found, why=f"less than {_SPACE_NEEDED >> 20} MiB free",
            mend="make room there, or set data_root elsewhere",
        )  # fmt: skip
    return Check(check.name, ok=check.ok, found=found, why=check.why, mend=check.mend)


def _existing(path: str) -> str:
    """The deepest directory on the way to a path that is there."""
    while not os.path.isdir(path) and path != "/":
        if os.path.lexists(path):
            raise HostError(f'"{path}" is not a directory', hint="remove it, or name another")
        path = os.path.dirname(path)
    return path


def _writable(name: str, path: str, setting: str) -> Check:
    existing = _existing(path)
    status = os.statvfs(existing)
    if status.f_flag & os.ST_RDONLY or not os.access(existing, os.W_OK | os.X_OK):
        return Check(
            name, ok=False, found=path, why=f'"{existing}" cannot be written',
            mend=f"set {setting} elsewhere, or remount it for writing",
        )  # fmt: skip
    return Check(name, ok=True, found=path)


def _namespaces(_config: Config, host: Host) -> Check:
    there = set(os.listdir(f"{host.proc}/self/ns"))
    missing = [n for n in _NAMESPACES if n not in there]
    if missing:
        why = "the kernel has none of kind " + ", ".join(missing)
        return Check("namespaces", ok=False, why=why, mend="use a kernel with all namespaces")
    return Check("namespaces", ok=True, found=", ".join(_NAMESPACES))


def _notification(_config: Config, host: Host) -> Check:
    name = "seccomp notification"
    with open(f"{host.proc}/sys/kernel/seccomp/actions_avail", encoding="utf-8") as file:
        if "user_notif" in file.read().split():
            return Check(name, ok=True, found="available", required=False)
    return Check(
        name, ok=False, required=False, mend="use a kernel from 5.0 on",
        why="each machine gets a copy of the template's memory: slower, and it takes more of it",
    )  # fmt: skip


def _cgroups(_config: Config, host: Host) -> Check:
    with open(f"{host.proc}/mounts", encoding="utf-8", errors="replace") as file:
        mounts = [line.split() for line in file]
    unified = [m[1] for m in mounts if len(m) > 2 and m[2] == "cgroup2"]
    legacy = sorted({m[1] for m in mounts if len(m) > 2 and m[2] == "cgroup"})
    if unified and not legacy:
        return Check("cgroups", ok=True, found=f"version 2 at {unified[0]}", required=False)
    found = f"version 1, {len(legacy)} hierarchies" if legacy else "none mounted"
    return Check(
        "cgroups", ok=bool(legacy), found=found, required=False,
        why="" if legacy else "what a machine uses on the host is neither limited nor counted",
        mend="" if legacy else "mount -t cgroup2 none /sys/fs/cgroup",
    )  # fmt: skip


def _tun(_config: Config, host: Host) -> Check:
    path = f"{host.dev}/net/tun"
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        return Check(
            "tun", ok=False, found=path, required=False, mend="modprobe tun",
            why=f"{str(error.strerror).lower()}; containers can have no network",
        )  # fmt: skip
    return Check("tun", ok=True, found=path, required=False)


def _memory(config: Config, host: Host) -> Check:
    with open(f"{host.proc}/meminfo", encoding="ascii") as file:
        values = {line.partition(":")[0]: line.split()[1] for line in file if ":" in line}
    available = int(values["MemAvailable"]) >> 10
    needed = config.hypervisor.default_memory
    found = f"{available} MiB available, a machine takes up to {needed}"
    if available >= needed:
        return Check("memory", ok=True, found=found)
    return Check(
        "memory", ok=False, found=found, why="too little for one machine",
        mend="end something, or lower default_memory",
    )  # fmt: skip


_CHECKS: tuple[tuple[str, Callable[[Config, Host], Check]], ...] = (
    ("root", _root),
    ("architecture", _machine),
    ("namespaces", _namespaces),
    ("state directory", _state_root),
    ("data directory", _data_root),
    ("memory", _memory),
    ("libseccomp", _libseccomp),
    ("qemu", _qemu),
    ("guest image", _guest_image),
    ("accelerator", _accelerator),
    (_SHARE, _share),
    ("seccomp notification", _notification),
    ("cgroups", _cgroups),
    ("tun", _tun),
    ("erofs", _tool("erofs", "mkfs.erofs", "erofs-utils", "images cannot be unpacked")),
    ("skopeo", _tool("skopeo", "skopeo", "skopeo", "images cannot be fetched from a registry")),
    ("zstd", _tool("zstd", "zstd", "zstd", "guest images cannot be built")),
)  # fmt: skip
