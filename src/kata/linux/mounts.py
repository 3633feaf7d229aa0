"""Mount options as in fstab and OCI, turned into flags, and mounting with them.

Source: runtime-spec config.md "Mounts" (the table of options) and mount(2). Parsing is pure.
"""

from __future__ import annotations

import os

from kata.linux import syscalls as sc
from kata.wire.record import record

_SET: dict[str, int] = {
    "ro": sc.MS_RDONLY, "nosuid": sc.MS_NOSUID, "nodev": sc.MS_NODEV, "noexec": sc.MS_NOEXEC,
    "sync": sc.MS_SYNCHRONOUS, "dirsync": sc.MS_DIRSYNC, "remount": sc.MS_REMOUNT,
    "mand": sc.MS_MANDLOCK, "noatime": sc.MS_NOATIME, "nodiratime": sc.MS_NODIRATIME,
    "relatime": sc.MS_RELATIME, "strictatime": sc.MS_STRICTATIME, "lazytime": sc.MS_LAZYTIME,
    "iversion": sc.MS_I_VERSION, "silent": sc.MS_SILENT, "nosymfollow": sc.MS_NOSYMFOLLOW,
    "bind": sc.MS_BIND, "rbind": sc.MS_BIND | sc.MS_REC, "defaults": 0,
}  # fmt: skip
_CLEAR: dict[str, int] = {
    "rw": sc.MS_RDONLY, "suid": sc.MS_NOSUID, "dev": sc.MS_NODEV, "exec": sc.MS_NOEXEC,
    "async": sc.MS_SYNCHRONOUS, "nomand": sc.MS_MANDLOCK, "atime": sc.MS_NOATIME,
    "diratime": sc.MS_NODIRATIME, "norelatime": sc.MS_RELATIME, "loud": sc.MS_SILENT,
    "nostrictatime": sc.MS_STRICTATIME, "nolazytime": sc.MS_LAZYTIME,
    "noiversion": sc.MS_I_VERSION, "symfollow": sc.MS_NOSYMFOLLOW,
}  # fmt: skip
PROPAGATION: dict[str, int] = {
    "private": sc.MS_PRIVATE, "rprivate": sc.MS_PRIVATE | sc.MS_REC,
    "shared": sc.MS_SHARED, "rshared": sc.MS_SHARED | sc.MS_REC,
    "slave": sc.MS_SLAVE, "rslave": sc.MS_SLAVE | sc.MS_REC,
    "unbindable": sc.MS_UNBINDABLE, "runbindable": sc.MS_UNBINDABLE | sc.MS_REC,
}  # fmt: skip
# recursive attributes: name -> (set, clear) for mount_setattr(2)
_RECURSIVE: dict[str, tuple[int, int]] = {
    "rro": (sc.MOUNT_ATTR_RDONLY, 0), "rrw": (0, sc.MOUNT_ATTR_RDONLY),
    "rnosuid": (sc.MOUNT_ATTR_NOSUID, 0), "rsuid": (0, sc.MOUNT_ATTR_NOSUID),
    "rnodev": (sc.MOUNT_ATTR_NODEV, 0), "rdev": (0, sc.MOUNT_ATTR_NODEV),
    "rnoexec": (sc.MOUNT_ATTR_NOEXEC, 0), "rexec": (0, sc.MOUNT_ATTR_NOEXEC),
    "rnodiratime": (sc.MOUNT_ATTR_NODIRATIME, 0), "rdiratime": (0, sc.MOUNT_ATTR_NODIRATIME),
    "rrelatime": (0, sc.MOUNT_ATTR_ATIME),
    "rnorelatime": (sc.MOUNT_ATTR_STRICTATIME, sc.MOUNT_ATTR_ATIME),
    "rnoatime": (sc.MOUNT_ATTR_NOATIME, sc.MOUNT_ATTR_ATIME),
    "ratime": (0, sc.MOUNT_ATTR_ATIME),
    "rstrictatime": (sc.MOUNT_ATTR_STRICTATIME, sc.MOUNT_ATTR_ATIME),
    "rnosymfollow": (sc.MOUNT_ATTR_NOSYMFOLLOW, 0), "rsymfollow": (0, sc.MOUNT_ATTR_NOSYMFOLLOW),
}  # fmt: skip
# of mount(8), or settled elsewhere: the host maps ids
_PASSED_OVER = ("_netdev", "auto", "noauto", "nofail", "user", "nouser", "idmap", "ridmap")
# the flags a bind mount keeps for itself, apart from its file system
PER_MOUNT = (
    sc.MS_RDONLY | sc.MS_NOSUID | sc.MS_NODEV | sc.MS_NOEXEC | sc.MS_NOATIME | sc.MS_NODIRATIME
    | sc.MS_RELATIME | sc.MS_STRICTATIME | sc.MS_NOSYMFOLLOW
)  # fmt: skip


@record
class Options:
    """Parsed options: flags for mount(2), what was explicitly cleared, and the rest."""

    flags: int
    cleared: int
    propagation: tuple[int, ...]
    attributes: int
    attributes_cleared: int
    data: str
    copy_up: bool


def parse(options: list[str]) -> Options:
    """Options as flags; unknown ones are the file system's own and go into ``data``."""
    flags = cleared = attributes = attributes_cleared = 0
    propagation: list[int] = []
    data: list[str] = []
    copy_up = False
    for option in options:
        if option in _SET:
            flags |= _SET[option]
        elif option in _CLEAR:
            flags &= ~_CLEAR[option]
            cleared |= _CLEAR[option]
        elif option in PROPAGATION:
            propagation.append(PROPAGATION[option])
        elif option in _RECURSIVE:
            one, zero = _RECURSIVE[option]
            attributes = attributes & ~zero | one
            attributes_cleared |= zero
        elif option == "tmpcopyup":
            copy_up = True
        elif option not in _PASSED_OVER:
            data.append(option)
    return Options(
        flags, cleared, tuple(propagation), attributes, attributes_cleared, ",".join(data), copy_up
    )


def flags_of(path: str) -> int:
    """The flags of the mount that holds ``path``, as mount(2) takes them (statvfs(3))."""
    found = os.statvfs(path).f_flag
    known = 0
    for st, ms in (
        (1, sc.MS_RDONLY), (2, sc.MS_NOSUID), (4, sc.MS_NODEV), (8, sc.MS_NOEXEC),
        (1024, sc.MS_NOATIME), (2048, sc.MS_NODIRATIME), (4096, sc.MS_RELATIME),
    ):  # fmt: skip
        if found & st:
            known |= ms
    return known


def mount(source: str, target: str, fstype: str, options: Options) -> None:
    """Mount with parsed options: binds get their flags by a second call, then propagation."""
    bind = options.flags & sc.MS_BIND
    if bind:
        sc.mount(source, target, None, options.flags & (sc.MS_BIND | sc.MS_REC))
        own = options.flags & PER_MOUNT
        if own or options.cleared & PER_MOUNT:
            _remount(target, own, options.cleared)
    else:
        sc.mount(source, target, fstype, options.flags, options.data or None)
    finish(target, options)


def finish(target: str, options: Options) -> None:
    """Set propagation and recursive attributes of a fresh mount."""
    for kind in options.propagation:
        sc.mount("", target, None, kind)
    if options.attributes or options.attributes_cleared:
        sc.mount_setattr(target, sc.AT_RECURSIVE, options.attributes, options.attributes_cleared)


def bind_onto(source: str, target: int, options: Options) -> None:
    """Bind ``source`` over an open (``O_PATH``) target, complete with flags, in one step.

    The mount is made detached, gets its flags, and only then appears: no path of the target is
    looked up twice (open_tree(2), mount_setattr(2), move_mount(2)).
    """
    tree = sc.open_tree(source, recursive=bool(options.flags & sc.MS_REC))
    try:
        flags, cleared = _attributes(options.flags), _attributes(options.cleared)
        cleared &= ~(flags | sc.MOUNT_ATTR_ATIME)
        if flags & sc.MOUNT_ATTR_ATIME or options.flags & sc.MS_RELATIME:
            cleared |= sc.MOUNT_ATTR_ATIME  # the kernel wants all of them cleared to set one
        if flags or cleared:
            sc.mount_setattr("", sc.AT_EMPTY_PATH, flags, cleared, directory=tree)
        sc.move_mount(tree, target)
        for kind in options.propagation:
            flags = sc.AT_EMPTY_PATH | (sc.AT_RECURSIVE if kind & sc.MS_REC else 0)
            kind &= ~sc.MS_REC
            sc.mount_setattr("", flags, 0, directory=tree, propagation=kind)
        if options.attributes or options.attributes_cleared:
            sc.mount_setattr(
                "", sc.AT_EMPTY_PATH | sc.AT_RECURSIVE, options.attributes,
                options.attributes_cleared, directory=tree,
            )  # fmt: skip
    finally:
        os.close(tree)


def _attributes(flags: int) -> int:
    """The MOUNT_ATTR_* of mount_setattr(2) for MS_* flags: the first four are the same bits."""
    found = flags & 15
    for ms, attribute in (
        (sc.MS_NOATIME, sc.MOUNT_ATTR_NOATIME), (sc.MS_NODIRATIME, sc.MOUNT_ATTR_NODIRATIME),
        (sc.MS_STRICTATIME, sc.MOUNT_ATTR_STRICTATIME),
        (sc.MS_NOSYMFOLLOW, sc.MOUNT_ATTR_NOSYMFOLLOW),
    ):  # fmt: skip
        if flags & ms:
            found |= attribute
    return found


def _remount(target: str, flags: int, cleared: int) -> None:
    kept = flags_of(target) & ~cleared
    sc.mount("", target, None, sc.MS_REMOUNT | sc.MS_BIND | flags | kept)


def make_read_only(path: str) -> None:
    """Make the mount at ``path`` read-only, keeping its other flags."""
    _remount(path, sc.MS_RDONLY, 0)


def known_options() -> set[str]:
    """Every option that is not a file system's own."""
    return {*_SET, *_CLEAR, *PROPAGATION, *_RECURSIVE, "tmpcopyup", "idmap", "ridmap"}
