"""From an OCI bundle to what the host shares and what the guest is told.

Pure but for the look at what mounts name. The rule: the guest gets the engine's configuration
with three things changed: where files are, which namespaces are meant, and what only a host has.
"""

from __future__ import annotations

import os

from kata.errors import InvalidInput
from kata.oci.spec import namespaces
from kata.storage import plan as storage
from kata.wire.agent_api import RESOLVER, SANDBOX_NETWORK
from kata.wire.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from kata.storage.plan import Plan

    Spec = dict[str, Any]

# file systems of the kernel: the guest's own are meant, never the host's
_SYSTEM = ("/proc", "/sys", "/dev")
_SHM = "/dev/shm"
_RESOLV_CONF, _MOST_RESOLV_CONF = "/etc/resolv.conf", 64 << 10
# namespaces that every container has for itself in the guest, whatever a host shares
_ALWAYS_OWN = ("mount", "cgroup")
_GUEST_KINDS = ("user", "mount", "pid", "ipc", "uts", "network", "cgroup", "time")


@record
class Mounts:
    """The mounts of a bundle, sorted: host files to share, and what the guest makes itself.

    ``volumes`` go through the share; ``places`` has for each mount of the configuration the
    number of its volume, or -1; ``memory`` are (source on the host, bytes) of shared memory, which
    become a tmpfs.
    """

    volumes: tuple[storage.Volume, ...]
    places: tuple[int, ...]
    memory: tuple[tuple[str, int], ...] = ()


def sort_mounts(
    spec: Spec, bundle: str, look: Callable[[str], tuple[bool, int]],
    overlay: Callable[[Spec], str],
) -> Mounts:  # fmt: skip
    """Which mounts need the host.

    ``look`` tells of a path whether it is a directory, and the size of the file system if that is
    a tmpfs (else 0); it raises what ``pin`` does. ``overlay`` gives the source that a mount of
    an overlay becomes: its directories are the host's.
    """
    volumes: list[storage.Volume] = []
    places: list[int] = []
    memory: list[tuple[str, int]] = []
    for index, mount in enumerate(spec.get("mounts") or ()):
        source = mount.get("source") or ""
        if is_overlay(mount):
            places.append(len(volumes))
            options = _mount_options(mount)
            volumes.append(
                storage.Volume(
                    overlay(mount), mount["destination"], options=tuple(options), fresh=True
                )
            )
            continue
        if not is_bind(mount) or is_system(source):
            places.append(-1)
            continue
        source = os.path.normpath(os.path.join(bundle, source))
        is_directory, tmpfs = look(source)
        ids = mapped_ids(spec, index)
        named = (mount.get("source") or "").startswith("/")
        if _clean(mount["destination"]) == _SHM and tmpfs and named and ids is None:
            memory.append((source, _asked_size(mount) or tmpfs))
            places.append(-1)
            continue
        places.append(len(volumes))
        volumes.append(
            storage.Volume(
                source, mount["destination"], is_directory=is_directory,
                options=tuple(mount.get("options") or ()), ids=ids,
            )
        )  # fmt: skip
    return Mounts(tuple(volumes), tuple(places), tuple(memory))


def _asked_size(mount: Spec) -> int:
    """The bytes of shared memory that our own front end asks for; 0 if it does not."""
    for option in mount.get("options") or ():
        name, _, value = option.partition("=")
        if name == "size" and value.isascii() and value.isdecimal():
            return int(value)
    return 0


def is_overlay(mount: Spec) -> bool:
    """Whether a mount is an overlay: of directories of the host, as engines ask for it."""
    return mount.get("type") == "overlay" and not is_bind(mount)


def _mount_options(mount: Spec) -> list[str]:
    """The options of a mount that are not its file system's own."""
    from kata.linux.mounts import known_options

    known = known_options()
    return [option for option in mount.get("options") or () if option in known]


def mapped_ids(spec: Spec, index: int) -> storage.Ids | None:
    """What a mount maps its files' owners by, if by anything: its own maps, or the container's."""
    mount = spec["mounts"][index]
    options = mount.get("options") or ()
    own = mount.get("uidMappings"), mount.get("gidMappings")
    if not any(own) and "idmap" not in options and "ridmap" not in options:
        return None
    from kata.linux.users import parse

    linux = spec.get("linux") or {}
    uids, gids = own if any(own) else (linux.get("uidMappings"), linux.get("gidMappings"))
    return storage.Ids(parse(uids), parse(gids), recursive="ridmap" in options)


def host_binds(spec: Spec, bundle: str) -> tuple[tuple[str, str], ...]:
    """The mounts of files of the host: (source, destination), in order.

    In the place of a source, an overlay has options for one that can be looked at, which begin
    with ``lowerdir=``.
    """
    found = []
    for mount in spec.get("mounts") or ():
        source = mount.get("source") or ""
        if is_overlay(mount):
            from kata.storage.overlay import view

            try:
                found.append((view(mount.get("options") or ()), mount["destination"]))
            except InvalidInput:
                pass  # told when it is to be mounted
        elif is_bind(mount) and not is_system(source):
            found.append((os.path.normpath(os.path.join(bundle, source)), mount["destination"]))
    return tuple(found)


def resolv_conf(spec: Spec, bundle: str) -> str:
    """The file of the host that is mounted at /etc/resolv.conf, or nothing."""
    return next((s for s, d in reversed(host_binds(spec, bundle)) if d == _RESOLV_CONF), "")


def asks_engine(path: str) -> bool:
    """Whether a resolv.conf says now that the engine answers names; one that is none does not."""
    if not path:
        return False
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError:
        return False
    try:
        return names_engine(os.read(fd, _MOST_RESOLV_CONF))
    except OSError:
        return False
    finally:
        os.close(fd)


def names_engine(text: bytes) -> bool:
    """Whether the engine's resolver is among the name servers of a resolv.conf."""
    wanted = [b"nameserver", RESOLVER.encode()]
    return any(line.split()[:2] == wanted for line in text.splitlines())


def is_bind(mount: Spec) -> bool:
    """Whether a mount is a bind mount: by its type or by its options, as runc has it."""
    options = mount.get("options") or ()
    return mount.get("type") == "bind" or "bind" in options or "rbind" in options


def is_system(source: str) -> bool:
    """Whether a source is of the kernel's own file systems: the guest has those itself."""
    path = _clean(source)
    if path == _SHM or path.startswith(f"{_SHM}/"):
        return False
    return any(path == top or path.startswith(f"{top}/") for top in _SYSTEM)


def _clean(path: str) -> str:
    return "/" + path.strip("/") if path else ""


def guest_spec(spec: Spec, mounts: Mounts, plan: Plan, spaces: dict[str, str], state: Spec) -> Spec:
    """The configuration for the agent.

    ``spaces`` are the namespaces there (see ``spaces``), ``state`` is what hooks read.
    """
    linux = dict(spec.get("linux") or {})
    linux.pop("seccomp", None)  # goes as a program
    linux.pop("cgroupsPath", None)  # the host's
    linux["namespaces"] = [
        {"type": kind, **({"path": path} if path else {})} for kind, path in spaces.items()
    ]
    if linux.get("resources"):
        linux["resources"] = guest_resources(linux["resources"])
    for host_only in ("intelRdt", "mountLabel"):
        linux.pop(host_only, None)
    out = {**spec, "linux": linux, "root": {**spec["root"], "path": plan.root}}
    out["mounts"] = [
        _guest_mount(m, mounts, plan, i) for i, m in enumerate(spec.get("mounts") or ())
    ]
    for host_only in ("hooks", "annotations", "vm", "windows", "solaris", "zos"):
        out.pop(host_only, None)
    started = (spec.get("hooks") or {}).get("startContainer")
    if started:
        out["hooks"] = {"startContainer": started, "state": state}
    return out


def guest_resources(resources: Spec) -> Spec:
    """The limits that are the guest's: numbers of processors and memory nodes are the host's."""
    cpu = {k: v for k, v in (resources.get("cpu") or {}).items() if k not in ("cpus", "mems")}
    return {**resources, "cpu": cpu} if resources.get("cpu") else resources


def _guest_mount(mount: Spec, mounts: Mounts, plan: Plan, index: int) -> Spec:
    place = mounts.places[index]
    if place >= 0:
        options = _mount_options(mount) if is_overlay(mount) else mount.get("options") or ()
        return {**mount, "source": plan.mounts[place]["source"], "type": "bind",
                "options": _guest_options(options)}  # fmt: skip
    if is_bind(mount) and not is_system(mount.get("source") or ""):
        kept = [o for o in mount.get("options") or () if o in ("ro", "nosuid", "nodev", "noexec")]
        return {"destination": mount["destination"], "type": "bind",
                "source": memory_point(os.path.normpath(mount["source"])),
                "options": ["rbind", *kept]}  # fmt: skip
    return mount


def _guest_options(options: Iterable[str]) -> list[str]:
    """A bind mount's options in the guest: how deep it goes was settled on the host."""
    kept = [o for o in options if o not in ("bind", "rbind")]
    return ["rbind" if "bind" not in options else "bind", *kept]


def memory_point(source: str) -> str:
    """Where the guest has the tmpfs that stands for the host's shared memory at ``source``."""
    return "/run/kata/memory/" + source.strip("/").replace("/", "-")


def memory_storages(mounts: Mounts) -> list[Any]:
    """Storages for shared memory: containers of a pod that name the same source share it."""
    from kata.wire.agent_api import Storage

    return [
        Storage(
            driver="tmpfs", source="shm", fstype="tmpfs", mount_point=memory_point(source),
            options=["nosuid", "nodev", "noexec", "mode=1777", f"size={size}"],
        )
        for source, size in mounts.memory
    ]  # fmt: skip


def spaces(spec: Spec, owner: Callable[[str, str], str]) -> dict[str, str]:
    """The namespaces in the guest: kind to path, empty for a new one.

    ``owner(kind, path)`` gives the guest's path for a namespace that the engine names by a path on
    the host; it raises if that is of no container in this virtual machine.
    """
    wanted = namespaces(spec)
    found = dict.fromkeys(_ALWAYS_OWN, "")
    for kind in _GUEST_KINDS:
        if kind in wanted and kind not in (*_ALWAYS_OWN, "network"):
            path = wanted[kind]
            found[kind] = owner(kind, path) if path else ""
    if "network" in wanted:  # the sandbox's, whoever made it: all of its containers are in it
        found["network"] = SANDBOX_NETWORK
    return found
