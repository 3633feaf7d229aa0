"""A container's file system: its root, mounts, devices and hidden paths (in the child).

The rule: until the root is entered, every path inside it is resolved by openat2(2) inside the
root; after that, the root is all there is.
"""

from __future__ import annotations

import os

from kata.errors import GuestError, InvalidInput
from kata.linux import copytree, devices, inroot, mounts, tty
from kata.linux import syscalls as sc
from kata.wire.record import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from kata.guest import staged

_ENOTDIR, _ENOENT, _EBUSY = 20, 2, 16


class Rootfs:
    """Builds and enters the root of one container."""

    def __init__(
        self, spec: dict[str, Any], stage: str, choice: staged.Choice, *, mounted: bool,
        nodes: list[str] | None = None,
    ) -> None:  # fmt: skip
        """``mounted``: the root is a mount of its own already.

        In a user namespace no device nodes can be made: ``nodes`` are those to bind for the
        specification's. Mounts of the agent's cannot be moved there, so the root becomes a new one.
        """
        self._mounted = mounted and nodes is None
        self._nodes = nodes
        self._spec = spec
        self._linux: dict[str, Any] = spec.get("linux") or {}
        self._mounts: list[dict[str, Any]] = spec.get("mounts") or []
        self._stage, self._choice = stage, choice
        self._path = str(spec["root"]["path"])
        if not self._path.startswith("/"):
            raise InvalidInput(f'root.path "{self._path}" is not an absolute path')
        self._root = -1
        self.group = ""  # the container's control group, where it is known

    def build(
        self, files: list[tuple[str, str, bool]], contents: list[tuple[str, bytes, int]]
    ) -> None:
        """Everything inside the root: mounts, device nodes, files.

        ``files`` are (path, source, read-only) to bind, ``contents`` (path, content, mode) to
        write, which the root must be the container's own for.
        """
        try:
            if not self._mounted:
                sc.mount(self._path, self._path, None, sc.MS_BIND | sc.MS_REC)
        except OSError as error:
            raise failed(f'root "{self._path}"', error) from None
        self._root = os.open(self._path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        for path in self._choice.dropped:
            try:
                sc.umount(self._stage + path, sc.MNT_DETACH)
            except OSError:
                pass  # a masked path that this kernel does not have
        for mount in self._mounts:
            self._mount(mount)
        self._devices()
        write_contents(self._root, contents)
        for path, source, readonly in files:
            options = mounts.parse(["bind", "ro"] if readonly else ["bind"])
            self._bind(source, path, options)

    def enter(self) -> None:
        """Make the built root the root; the old one is gone afterwards."""
        os.fchdir(self._root)
        sc.pivot_root(".", ".")
        sc.umount(".", sc.MNT_DETACH)  # of a slave: it stays where it came from
        os.chdir("/")
        os.close(self._root)

    def hide(self) -> None:
        """Mask and write-protect, after everything that had to be written was."""
        missing = [
            p for p in self._linux.get("maskedPaths") or [] if p not in self._choice.masked
        ]
        if missing and os.stat("/dev/null").st_rdev != os.makedev(1, 3):
            raise GuestError("mask paths", why="/dev/null in the container is no null device")
        for path in missing:
            mask(path, "/dev/null")
        for path in self._linux.get("readonlyPaths") or []:
            if path not in self._choice.readonly:
                protect(path)
        if self._spec["root"].get("readonly"):
            mounts.make_read_only("/")
        propagation = self._linux.get("rootfsPropagation")
        if propagation:
            kind = mounts.PROPAGATION.get(propagation)
            if kind is None:
                raise InvalidInput(f'linux.rootfsPropagation "{propagation}" is unknown')
            sc.mount("", "/", None, kind & ~sc.MS_REC)  # mounts below have their own

    def _mount(self, mount: dict[str, Any]) -> None:
        target = str(mount["destination"])
        target = "/" + target.strip("/")
        try:
            self._one_mount(mount, target)
        except OSError as error:
            source = mount.get("source") or mount.get("type") or "none"
            raise failed(f'mount "{source}" at "{target}"', error) from None

    def _one_mount(self, mount: dict[str, Any], target: str) -> None:
        if target in self._choice.moved:
            with _Opened(inroot.make_directory(self._root, target)) as fd:
                sc.mount(self._stage + target, inroot.text_of(fd), None, sc.MS_MOVE)
            return
        if target in self._choice.ready:
            return
        options = mounts.parse(mount.get("options") or [])
        if options.flags & sc.MS_BIND or mount.get("type") == "bind":
            self._bind(str(mount["source"]), target, options)
        else:
            self._new(mount, target, options)

    def _bind(self, source: str, target: str, options: mounts.Options) -> None:
        make = inroot.make_directory if os.path.isdir(source) else inroot.make_file
        with _Opened(make(self._root, target)) as fd:
            mounts.bind_onto(source, fd, options)

    def _new(self, mount: dict[str, Any], target: str, options: mounts.Options) -> None:
        fstype = str(mount.get("type") or "none")
        fstype = "cgroup2" if fstype == "cgroup" else fstype
        data = options.data
        if fstype == "tmpfs" and "mode=" not in data:
            data = self._keep_mode(target, data)
        copied = options.copy_up and fstype == "tmpfs" and self._is_directory(target)
        with _Opened(inroot.make_directory(self._root, target)) as fd:
            source = str(mount.get("source") or fstype)
            flags = options.flags & ~sc.MS_RDONLY if copied else options.flags
            try:
                sc.mount(source, inroot.text_of(fd), fstype, flags, data or None)
            except OSError as error:
                if error.errno != _EBUSY or fstype != "cgroup2" or not self.group:
                    raise
                self._bind_group(target, options)  # over another mount of it, with a bound /sys
                return
            if copied:
                self._copy_up(fd, target, options)
        if options.propagation or options.attributes or options.attributes_cleared:
            with _Opened(inroot.open_path(self._root, target, os.O_DIRECTORY)) as fd:
                mounts.finish(inroot.text_of(fd), options)

    def _bind_group(self, target: str, options: mounts.Options) -> None:
        """The container's own part of the control groups, as runc has it then."""
        self._bind(self.group, target, replace(options, flags=options.flags | sc.MS_BIND, data=""))

    def _is_directory(self, target: str) -> bool:
        try:
            os.close(inroot.open_path(self._root, target, os.O_DIRECTORY))
        except OSError:
            return False
        return True

    def _copy_up(self, covered: int, target: str, options: mounts.Options) -> None:
        """Fill a new tmpfs with what the image has there, as ``tmpcopyup`` asks for."""
        with _Opened(inroot.open_path(self._root, target, os.O_DIRECTORY)) as fd:
            copytree.copy(covered, fd)
            if options.flags & sc.MS_RDONLY:
                sc.mount("", inroot.text_of(fd), None, options.flags | sc.MS_REMOUNT)

    def _keep_mode(self, target: str, data: str) -> str:
        """A tmpfs over a directory of the image has that one's mode, as runc has it."""
        try:
            with _Opened(inroot.open_path(self._root, target, os.O_DIRECTORY)) as fd:
                mode = f"mode={os.fstat(fd).st_mode & 0o7777:o}"
        except OSError:
            return data
        return f"{data},{mode}" if data else mode

    def _devices(self) -> None:
        bound = any(
            m["destination"].rstrip("/") == "/dev" and m.get("type") == "bind" for m in self._mounts
        )
        if bound:
            return  # somebody's directory, perhaps the host's: nothing is made there
        if "/dev" not in self._choice.moved:
            with _Opened(inroot.make_directory(self._root, "/dev")) as fd:
                if self._nodes is None:
                    fill_dev(fd)
                else:
                    devices.make_links(fd)
            if self._nodes is not None:
                for node in devices.DEFAULT:
                    self._bind_node(node.path, node.path)
        for number, entry in enumerate(self._linux.get("devices") or []):
            if devices.is_own_terminals(str(entry["path"])):
                continue
            if self._nodes is not None:
                self._bind_node(self._nodes[number], str(entry["path"]))
            else:
                self._device(devices.node_of(entry))

    def _bind_node(self, source: str, path: str) -> None:
        try:
            self._bind(source, "/" + path.strip("/"), mounts.parse(["bind"]))
        except OSError as error:
            raise failed(f'device "{path}"', error) from None

    def _device(self, node: devices.Node) -> None:
        head, name = os.path.split("/" + node.path.strip("/"))
        try:
            with _Opened(inroot.make_directory(self._root, head)) as fd:
                if any(node.path == default.path for default in devices.DEFAULT):
                    devices.remove(name, fd)  # what is asked for comes before what all have
                devices.make(node, name, fd)
        except OSError as error:
            raise failed(f'device "{node.path}"', error) from None


class _Opened:
    """A descriptor that is closed at the end of a block."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def __enter__(self) -> int:
        return self._fd

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)


def failed(what: str, error: OSError) -> GuestError:
    """The error of a failed system call, saying what it was for."""
    named = error.filename if isinstance(error.filename, str) else ""
    detail = f" ({named})" if named and "/proc/self/fd/" not in named else ""
    return GuestError(what, why=f"{(error.strerror or str(error)).lower()}{detail}")


def write_contents(root: int, contents: list[tuple[str, bytes, int]]) -> None:
    """Write files (path, content, mode) into a root that is the container's own."""
    for path, content, mode in contents:
        try:
            inroot.write_file(root, path, content, mode)
        except OSError as error:
            raise failed(f'write "{path}"', error) from None


def fill_dev(directory: int) -> None:
    """The default device nodes and links of /dev."""
    for node in devices.DEFAULT:
        devices.make(node, node.path.rpartition("/")[2], directory)
    devices.make_links(directory)


def _touch(path: str) -> None:
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        pass


def mask(path: str, null: str) -> None:
    """Hide a path: a file behind the null device, a directory behind an empty one."""
    try:
        sc.mount(null, path, None, sc.MS_BIND)
    except OSError as error:
        if error.errno == _ENOTDIR:
            sc.mount("tmpfs", path, "tmpfs", sc.MS_RDONLY)
        elif error.errno != _ENOENT:
            raise failed(f'mask "{path}"', error) from None


def protect(path: str) -> None:
    """Make a path read-only, if it exists."""
    try:
        sc.mount(path, path, None, sc.MS_BIND | sc.MS_REC)
        mounts.make_read_only(path)
    except OSError as error:
        if error.errno != _ENOENT:
            raise failed(f'make "{path}" read-only', error) from None


def console(rows: int, columns: int) -> tuple[int, int]:
    """A terminal of the container's own devpts, as its /dev/console too: master and slave."""
    master, slave, number = tty.open_pair("/dev/pts/ptmx")
    if rows or columns:
        tty.resize(master, rows, columns)
    try:
        _touch("/dev/console")
        sc.mount(f"/dev/pts/{number}", "/dev/console", None, sc.MS_BIND)
    except OSError as error:
        raise failed('terminal at "/dev/console"', error) from None
    return master, slave
