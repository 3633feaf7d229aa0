"""The parked child: half a container, made before a template is frozen, waiting for its plan.

It has namespaces and a control group of its own and the standard mounts on a stage. What a
container needs otherwise is made anew; a parked child that fits nothing is never used.
"""

from __future__ import annotations

import os

from kata.guest import pipes, rootfs, spawn, staged
from kata.guest.child import Child, write_parameters
from kata.guest.confine import new_keyring
from kata.guest.settled import Settled
from kata.linux import capabilities, devicefilter, mounts, sysctl
from kata.linux import namespaces as ns
from kata.linux import syscalls as sc
from kata.wire.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

    from kata.guest.spec import Spec
    from kata.linux.cgroup2 import Group

PRIVATE = ("mount", "pid", "network", "uts", "ipc", "cgroup")
PARKED, ROOTED = "parked", "rooted"
_HELD = ("network", "mount")  # their end takes long, and would delay the news of the exit


@record
class Parked:
    """A child that waits for a plan on ``pipes.go``."""

    pid: int
    pipes: pipes.Pipes
    group: Group
    devices: bytes  # the device filter of the group
    devices_fd: int
    namespaces: tuple[int, ...]  # held, so that they are torn down with the container's record
    shares_network: bool = False  # it is in the agent's network namespace, the sandbox's


@record
class Files:
    """Small files bound into a container, by the paths they have there; open for writing."""

    paths: tuple[str, ...] = ()
    fds: tuple[int, ...] = ()
    directory: str = ""

    def sources(self) -> list[tuple[str, str, bool]]:
        """As (path in the container, path in the guest, read-only)."""
        return [(path, f"{self.directory}/{n}", False) for n, path in enumerate(self.paths)]


@record
class Root:
    """The root that a parked child has made: of what, and the mount points it stands on.

    ``settled``: its process is confined too, and waits for the content of its files and a program.
    """

    storages: tuple[bytes, ...]
    part: Spec
    points: tuple[str, ...]
    kinds: dict[str, str]
    settled: bool
    files: Files


def make_files(directory: str, paths: list[str]) -> Files:
    """Empty files, to be bound at ``paths``."""
    if not paths:
        return Files()
    os.mkdir(directory, 0o700)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    fds = []
    for number, _ in enumerate(paths):
        fds.append(os.open(f"{directory}/{number}", flags, 0o600))
        os.fchmod(fds[-1], 0o644)
    return Files(tuple(paths), tuple(fds), directory)


def fits(wanted: dict[str, str], bounding: list[str], *, shares_network: bool = False) -> bool:
    """Whether a container with these namespaces and capabilities can grow from a parked child.

    Three namespaces cannot be changed any more; the others can be left for those of someone
    else, but who ``shares_network`` makes no new one. What left the bounding set does not come
    back.
    """
    if "user" in wanted or "time" in wanted or not set(bounding) <= set(staged.CAPABILITIES):
        return False
    if shares_network and wanted.get("network") == "":
        return False
    return all(wanted.get(kind) == "" for kind in ("mount", "pid", "cgroup"))


def park(stage: str, group: Group, *, shares_network: bool = False) -> Parked:
    """Fork a child that makes ready what it can and waits.

    With ``shares_network`` it stays in the agent's network namespace.
    """
    own = tuple(kind for kind in PRIVATE if kind != "network" or not shares_network)
    devices = devicefilter.compile_rules(staged.DEVICE_RULES)
    devices_fd = devicefilter.attach(group.path, devices)
    wires = pipes.Pipes(stdin=True, stdout=True, stderr=True)
    flags = spawn.flags_for(dict.fromkeys(own, ""))
    keep = wires.child_ends()

    def body() -> None:
        _wait_parked(stage, group, wires, own)

    pid = spawn.fork(flags, body, wires.child_report, keep)
    wires.close_child_ends()
    kinds = [kind for kind in _HELD if kind in own]
    held = tuple(os.open(ns.path_of(k, pid), os.O_RDONLY | os.O_CLOEXEC) for k in kinds)
    return Parked(pid, wires, group, devices, devices_fd, held, shares_network)


def _wait_parked(stage: str, group: Group, wires: pipes.Pipes, own: tuple[str, ...]) -> NoReturn:
    group.add()
    sc.unshare(sc.CLONE_NEWCGROUP)
    sc.mount("", "/", None, sc.MS_SLAVE | sc.MS_REC)
    if "network" in own:
        ns.loopback_up()
    set_stage(stage)
    for name, (value, _) in staged.SYSCTLS.items():
        sysctl.write(name, value)
    new_keyring()
    capabilities.limit_bounding(capabilities.mask_of(staged.CAPABILITIES))
    pipes.report(wires.child_report, PARKED)
    plan = pipes.receive_plan(wires.child_go)
    rooted = plan is not None and bool(plan.get(ROOTED))
    if plan is not None and rooted:
        make_root(plan["spec"], stage, mounted=plan["mounted"], files=plan["files"])
        if plan["process"]:
            _wait_settled(plan, wires)
        pipes.report(wires.child_report, ROOTED)
        plan = pipes.receive_plan(wires.child_go)
    if plan is not None:
        child = Child(plan, wires.child_go, wires.child_report, wires.child_stdio)
        child.create(stage, rooted=rooted)
    os._exit(0)


def _wait_settled(plan: dict[str, Any], wires: pipes.Pipes) -> NoReturn:
    child = Settled(plan, wires.child_go, wires.child_report, wires.child_stdio)
    child.settle(capabilities.mask_of(staged.CAPABILITIES))
    pipes.report(wires.child_report, ROOTED)
    program, let_go = pipes.receive_program(wires.child_go)
    if program:
        child.run(program, let_go=let_go)
    os._exit(0)


def make_root(
    spec: Spec, stage: str, *, mounted: bool, files: list[tuple[str, str, bool]]
) -> None:
    """Build, enter and protect the root of a container whose process is not known yet.

    ``files`` are bound; without them, those that are written later are made in a root of its own.
    """
    os.umask(0)
    write_parameters(spec, parked=True)
    root = rootfs.Rootfs(spec, stage, staged.of(spec), mounted=mounted)
    own = mounted and not files
    root.build(files, [(path, b"", 0o644) for path in staged.FILES] if own else [])
    root.enter()
    root.hide()


def set_stage(stage: str) -> None:
    """Mount the standard mounts below ``stage``, with devices, and hide what is hidden."""
    os.umask(0)
    for path, fstype, options in staged.MOUNTS:
        target = stage + path
        os.makedirs(target, 0o755, exist_ok=True)
        kind = "cgroup2" if fstype == "cgroup" else fstype
        mounts.mount(fstype, target, kind, mounts.parse(list(options)))
        if path == "/dev":
            fd = os.open(target, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            rootfs.fill_dev(fd)
            os.close(fd)
    for path in staged.MASKED:
        rootfs.mask(stage + path, f"{stage}/dev/null")
    for path in staged.READONLY:
        rootfs.protect(stage + path)
