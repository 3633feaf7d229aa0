"""What becomes of each field of config.json: the table behind ``docs/reference/oci.md``.

The one rule: every field that the schema knows has a row, and a test holds the two together. Rows
are (path, what becomes of it, why or how); ``[]`` stands for the elements of an array.
"""

from __future__ import annotations

from kata.errors import InvalidSpec, Unsupported
from kata.oci.defaults import ALL_CAPABILITIES
from kata.oci.spec import namespaces

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

HOST, GUEST, BOTH = "on the host", "in the guest", "on both sides"
REFUSED, IGNORED = "refused", "ignored"

# fmt: off
ROWS: tuple[tuple[str, str, str], ...] = (
    ("ociVersion", IGNORED, "any, or none, as runc has it: what is not known is ignored"),
    ("annotations", HOST, "kept, printed by state, given to hooks; a pod's decide on its virtual machine"),
    ("hostname", GUEST, ""),
    ("domainname", GUEST, ""),
    ("root.path", HOST, "shared with the virtual machine by virtio-fs"),
    ("root.readonly", GUEST, "the mount is read-only in the guest; mount points are made first"),
    ("process.args", GUEST, ""),
    ("process.commandLine", IGNORED, "Windows"),
    ("process.cwd", GUEST, "made where it is missing, as runc does"),
    ("process.env", GUEST, ""),
    ("process.terminal", BOTH, "a terminal in the guest, and one on the host for the engine, which passes bytes as they are"),
    ("process.consoleSize", BOTH, "and later changes of size; of a number the low 16 bits, a missing one is 0: no size then"),
    ("process.user.uid", GUEST, ""),
    ("process.user.gid", GUEST, ""),
    ("process.user.additionalGids", GUEST, ""),
    ("process.user.umask", GUEST, ""),
    ("process.user.username", IGNORED, "Windows"),
    ("process.capabilities", GUEST, "all five sets; they are rights in the guest alone"),
    ("process.noNewPrivileges", GUEST, ""),
    ("process.oomScoreAdj", GUEST, ""),
    ("process.rlimits[]", GUEST, "of one that is there twice the last counts, as in runc"),
    ("process.scheduler", GUEST, ""),
    ("process.ioPriority", GUEST, ""),
    ("process.execCPUAffinity.initial", IGNORED, "the guest has no processors apart for a runtime"),
    ("process.execCPUAffinity.final", GUEST, ""),
    ("process.apparmorProfile", IGNORED, "the guest's kernel has no profiles: the virtual machine confines"),
    ("process.selinuxLabel", IGNORED, "the guest's kernel has no policy"),
    ("mounts[].destination", GUEST, "made in the root where it is missing; links stay inside it; a relative one begins at the root"),
    ("mounts[].source", BOTH, "files of the host are shared; below /proc, /sys and /dev the guest's own are meant; a tmpfs at /dev/shm becomes one of the guest of the same size; an empty one of a bind mount is the bundle, as with runc"),
    ("mounts[].type", BOTH, "an overlay is made on the host, of directories of the host, and shared; cgroup is version 2's in the guest, whatever the host has"),
    ("mounts[].options", BOTH, "read-only is enforced in the guest; propagation reaches within the guest, not from the host"),
    ("mounts[].uidMappings", HOST, "of bind mounts: mounted id-mapped on the host, in the share, where the host's kernel can do so for their file system; else the mount is refused"),
    ("mounts[].gidMappings", HOST, "with them"),
    ("hooks.prestart", HOST, "before the container is made in the guest, while that comes up; the relative path of a hook begins at the bundle"),
    ("hooks.createRuntime", HOST, "after prestart"),
    ("hooks.createContainer", HOST, "in the network namespace of the sandbox: its other namespaces are in the guest"),
    ("hooks.startContainer", GUEST, "in the container, with the confinement of its process; a relative path begins at its working directory"),
    ("hooks.poststart", HOST, "by start"),
    ("hooks.poststop", HOST, "by delete; what fails is told and passed over"),
    ("linux.namespaces[].type", GUEST, "mount and cgroup are always the container's own; a user namespace owns the others, and the network of the sandbox if its first container has one; without network the configuration is refused, for that would be the host's"),
    ("linux.namespaces[].path", BOTH, "network: the sandbox's, on the host; others by the pid of a container of the same virtual machine"),
    ("linux.uidMappings", GUEST, "ids outside are those of files on the host, as with any runtime; the process on the host that stands for the container has the same map"),
    ("linux.gidMappings", GUEST, "both are passed over without a user namespace"),
    ("linux.devices[]", GUEST, "nodes are made, also in place of those that all have; the devices behind them are the guest's; another file that is there already is kept; a relative path begins at the root; a major above 4095 or a minor above 1048575 is refused: the kernel has no room for it and would make another device"),
    ("linux.cgroupsPath", HOST, "the virtual machine, its helpers and the stand-ins are in it; the guest has a group of its own; `..` leads up to the root and no further"),
    ("linux.resources.unified", GUEST, ""),
    ("linux.resources.devices[]", GUEST, "as a program of the container's group"),
    ("linux.resources.pids", GUEST, ""),
    ("linux.resources.memory.limit", BOTH, "1 MiB at least; the machine is made large enough, up to four fifths of the host's memory; the guest's group has the limit; update refuses more than the machine has"),
    ("linux.resources.memory.reservation", GUEST, ""),
    ("linux.resources.memory.swap", GUEST, "of memory and swap together; the guest has no swap"),
    ("linux.resources.memory.kernel", IGNORED, "gone from the kernel"),
    ("linux.resources.memory.kernelTCP", IGNORED, "not in version 2"),
    ("linux.resources.memory.swappiness", IGNORED, "not in version 2"),
    ("linux.resources.memory.disableOOMKiller", IGNORED, "not in version 2"),
    ("linux.resources.memory.useHierarchy", IGNORED, "always so in version 2"),
    ("linux.resources.memory.checkBeforeUpdate", IGNORED, "the kernel reclaims or kills"),
    ("linux.resources.cpu.shares", BOTH, ""),
    ("linux.resources.cpu.quota", BOTH, "on the host from the start of the process on; processors of the machine are rounded up from it"),
    ("linux.resources.cpu.burst", GUEST, ""),
    ("linux.resources.cpu.period", BOTH, ""),
    ("linux.resources.cpu.realtimeRuntime", IGNORED, "not in version 2"),
    ("linux.resources.cpu.realtimePeriod", IGNORED, "not in version 2"),
    ("linux.resources.cpu.cpus", HOST, "processors of the host: where the virtual machine may run"),
    ("linux.resources.cpu.mems", HOST, "memory nodes of the host"),
    ("linux.resources.cpu.idle", GUEST, "0 or 1, as the kernel has it; others are refused"),
    ("linux.resources.blockIO", IGNORED, "the files are not on a block device of the guest"),
    ("linux.resources.hugepageLimits[]", IGNORED, "the guest has no huge pages set aside"),
    ("linux.resources.network", IGNORED, "not in version 2"),
    ("linux.resources.rdma", IGNORED, "the guest has no such devices"),
    ("linux.rootfsPropagation", GUEST, ""),
    ("linux.seccomp", BOTH, "compiled on the host by libseccomp, loaded in the guest; one that says nothing is none"),
    ("linux.seccomp.listenerPath", REFUSED, "notifications would have to leave the virtual machine"),
    ("linux.seccomp.listenerMetadata", REFUSED, "with the listener"),
    ("linux.sysctl", GUEST, "those of a namespace of the container; not `kernel.hostname`, which has a field"),
    ("linux.maskedPaths", GUEST, ""),
    ("linux.readonlyPaths", GUEST, ""),
    ("linux.mountLabel", IGNORED, "the guest's kernel has no policy"),
    ("linux.personality.domain", GUEST, ""),
    ("linux.personality.flags", REFUSED, "as the specification has none"),
    ("linux.timeOffsets", GUEST, "passed over without a time namespace"),
    ("linux.intelRdt", IGNORED, "a guest has no resctrl"),
    ("vm", IGNORED, "the configuration file of the host says what runs virtual machines"),
    ("solaris", IGNORED, "another platform"),
    ("windows", IGNORED, "another platform"),
    ("zos", IGNORED, "another platform"),
)
# fmt: on


DIFFERENCES = (  # to runc, as the conformance suite and the engines' tests show them
    ("mounts of the host do not travel", "what is mounted on the host below a volume after the start is not seen in the container, whatever its propagation: it is another kernel's mount table"),
    ("changes of the host are seen within a second", "the guest keeps sizes and names of shared files for that long; what the container itself writes is seen at once; with the setting `virtio_fs_cache` at coherent everything is, at a price (docs/design/storage.md)"),
    ("inotify tells of changes on the host in configurations alone", "that is in read-only directories with a link `..data`, as kubelet makes them; elsewhere a watch in the guest hears of what is changed in the guest"),
    ("files that QEMU serves by 9p have gaps", "only where no virtio-fs daemon is found, or `shared_fs` says so: no sockets, pipes and devices can be made before QEMU 10.0, a file that is open and unlinked cannot change size, mode or owner, capabilities of programs are not seen (docs/design/storage.md)"),
    ("a reader that goes away is felt a little later", "a write may be on its way to it; the next one fails, with SIGPIPE as ever"),
    ("`ps` as a table shows the guest's processes", "as JSON it has the pids of stand-ins on the host, which engines look up; of ps(1)'s options `-ef`, `aux` and `-o` are taken, others refused"),
    ("`cpuset` places the virtual machine", "inside, all processors of the machine are seen"),
    ("`--preserve-fds` is refused", "a descriptor of the host is nothing in a guest"),
    ("an engine's `cp` into an overlay volume is refused", "that is Podman's `-v SRC:DST:O`: its upper directory is mounted in the share; copies out of it, and what the container writes, are as ever"),
    ("`spec --rootless` keeps the network namespace", "without one the network would be the host's"),
    ("`checkpoint` and `restore` are refused", "CRIU works on processes of the host; their `--help` fails, by which Podman and CRI-O ask"),
)


def refuse(spec: dict[str, Any]) -> None:
    """Raise ``Unsupported`` for what a container must not be started without, and cannot have."""
    linux = spec.get("linux") or {}
    kinds = namespaces(spec)
    if "network" not in kinds:
        raise Unsupported(
            "Host networking requested, not supported by runtime",
            why="config.json: linux.namespaces has no network namespace",
            hint="a container in a virtual machine has a network of its own",
        )
    if kinds.get("user") == "":
        for name in _MAPS:
            if not linux.get(name):
                raise InvalidSpec(f"linux.{name}", "is missing, and a user namespace needs it")
    for index, mount in enumerate(spec.get("mounts") or ()):
        options = mount.get("options") or ()
        if any(map(mount.get, _MAPS)) or "idmap" in options or "ridmap" in options:
            _refuse_id_map(mount, f"mounts[{index}]", linux)


_MAPS = ("uidMappings", "gidMappings")
_KERNEL = ("/proc", "/sys", "/dev")


def _refuse_id_map(mount: dict[str, Any], path: str, linux: dict[str, Any]) -> None:
    """The same for a mount that maps ids."""
    options = mount.get("options") or ()
    if mount.get("type") != "bind" and "bind" not in options and "rbind" not in options:
        raise InvalidSpec(path, "maps ids, which bind mounts alone can")
    given = mount if any(map(mount.get, _MAPS)) else linux
    for name in _MAPS:
        if not given.get(name):
            where = f"{path}.{name}" if given is mount else f"linux.{name}"
            raise InvalidSpec(where, f"is missing, and the id map of {path} needs it")
    source = mount.get("source") or ""
    if any(f"{source}/".startswith(f"{top}/") for top in _KERNEL) and source[:8] != "/dev/shm":
        raise Unsupported(
            f'cannot map ids of the mount at "{mount["destination"]}"',
            why=f'"{source}" is of the kernel\'s own file systems, which map none',
        )


def drop_unknown_capabilities(process: dict[str, Any]) -> list[str]:
    """Take capabilities that no kernel has out of a process object, as runc does; their names."""
    unknown: dict[str, None] = {}
    sets = process.get("capabilities") or {}
    for kind, names in sets.items():
        unknown.update(dict.fromkeys(n for n in names or () if n not in ALL_CAPABILITIES))
        sets[kind] = [n for n in names or () if n in ALL_CAPABILITIES]
    return list(unknown)


def page() -> str:
    """The reference page, Markdown."""
    lines = [
        "# What becomes of each field of config.json",
        "",
        "<!-- generated by `make docs` from src/kata/oci/honoured.py -->",
        "Runtime specification 1.2. Fields that are not here are unknown, and are kept as they are.",
        "",
        "| field | is honoured | how, or why not |",
        "| --- | --- | --- |",
    ]
    for path, what, why in ROWS:
        cell = f"**{what}**" if what in (REFUSED, IGNORED) else what
        lines.append(f"| `{path}` | {cell} | {why} |")
    lines += ["", "## What differs from runc", "", "| what | why |", "| --- | --- |"]
    lines += [f"| {what} | {why} |" for what, why in DIFFERENCES]
    return "\n".join(lines) + "\n"
