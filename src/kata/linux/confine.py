"""Start a program with nothing but what it was given: namespaces, an own root, no privileges.

The one rule: the child is a direct child of the caller, dies with it, and has at ``execve`` exactly
the descriptors, mounts, identity and capabilities of its ``Confinement``; a step that fails ends
the child before the program runs. Callers must be single threaded at ``spawn`` (a raw clone).

Sources: clone(2), pid_namespaces(7), capabilities(7), prctl(2), pivot_root(2), setns(2).
"""

from __future__ import annotations

import _signal
import _socket
import fcntl
import os
import select

from kata.errors import HostError
from kata.linux import fds as fdlib
from kata.linux import syscalls as sys
from kata.wire.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

ALL_NAMESPACES = (
    sys.CLONE_NEWNS | sys.CLONE_NEWPID | sys.CLONE_NEWNET
    | sys.CLONE_NEWIPC | sys.CLONE_NEWUTS | sys.CLONE_NEWCGROUP
)  # fmt: skip
_SCRATCH = "/tmp"  # a directory that every system has; covered only in the child's mount namespace
_ROOT_SIZE = "64k"
_SYS_PRLIMIT64 = 302
_F_DUPFD_CLOEXEC, _CLOSE_RANGE_CLOEXEC = 1030, 4
# SECBIT_NOROOT (and _LOCKED), SECBIT_NO_SETUID_FIXUP (and _LOCKED): being uid 0 means nothing
_SECUREBITS = 1 | 2 | 4 | 8
_LAST_CAPABILITY = 63
_REMOUNT = sys.MS_REMOUNT | sys.MS_BIND | sys.MS_NOSUID | sys.MS_NODEV | sys.MS_NOEXEC


@record
class Bind:
    """A file or directory of the host seen at ``target`` (absolute, inside the new root)."""

    source: str
    target: str
    readonly: bool = True
    recursive: bool = True


@record
class Tree:
    """A detached mount tree (open_tree(2)), by descriptor, attached at ``target``."""

    fd: int
    target: str


@record
class Confinement:
    """What a program may have.

    ``namespaces`` are CLONE_NEW* flags; with CLONE_NEWNS the root becomes an empty tmpfs holding
    ``binds``, ``links`` (target, text) and ``devices`` (host paths, made owned by ``uid``), which
    is read-only from then on. ``trees`` come after the binds, then
    the ``directories`` that are not there are made; ``proc`` are the entries of /proc
    to be there, each alone, so that no ``..`` leads from one to another. ``capabilities`` is a
    mask kept in every set; rlimits are (resource, value) and set both limits. ``hostname`` needs
    CLONE_NEWUTS. A later change of the effective uid takes none of them away: a file server that
    acts for others has asked nobody's leave, for the guest's kernel has decided already.

    It is born in the control group ``cgroup`` (a descriptor of version 2's), or writes itself into
    ``cgroup_tasks`` (version 1's files); that this works is for the caller to check.
    """

    uid: int
    gid: int
    namespaces: int = ALL_NAMESPACES
    binds: tuple[Bind, ...] = ()
    links: tuple[tuple[str, str], ...] = ()
    devices: tuple[str, ...] = ()
    capabilities: int = 0
    rlimits: tuple[tuple[int, int], ...] = ()
    no_new_privs: bool = True
    die_with_parent: bool = True
    intercept_open: bool = False
    hostname: str = ""
    trees: tuple[Tree, ...] = ()
    directories: tuple[str, ...] = ()
    proc: tuple[str, ...] = ()
    cgroup: int = -1
    cgroup_tasks: tuple[str, ...] = ()


class Process:
    """A confined child: pid 1 of its pid namespace, if it has one of its own."""

    def __init__(self, name: str, pid: int, status: _socket.socket) -> None:
        self.name = name
        self.pid = pid
        self.pidfd = os.pidfd_open(pid)
        self.listener = -1  # of seccomp notifications, after ``confirm``
        self._status: _socket.socket | None = status
        self._exit: int | None = None

    def confirm(self) -> None:
        """Wait until the program runs; raises ``HostError`` naming the step that failed."""
        status, self._status = self._status, None
        if status is None:
            return
        data = b"listener"
        while data == b"listener":
            data, received = fdlib.receive(status, 4096, 1)
            self.listener = received[0] if received else self.listener
        status.close()
        if data:
            step, _, why = data.decode(errors="replace").partition("\0")
            self.wait()
            self.close()
            raise HostError(f"cannot start {self.name}: {step}", why=why)

    def close_listener(self) -> None:
        """No more opens are intercepted: those that would be, fail with ENOSYS."""
        if self.listener >= 0:
            os.close(self.listener)
            self.listener = -1

    def poll(self) -> int | None:
        """The exit status if it has ended: its code, or minus the signal that killed it."""
        if self._exit is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self._exit = os.waitstatus_to_exitcode(status)
        return self._exit

    def wait(self) -> int:
        """Wait for its end; one thread at a time."""
        if self._exit is None:
            self._exit = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self._exit

    def kill(self, signal: int = 9) -> None:
        """Send a signal; nothing if it has ended."""
        if self._exit is None:
            try:
                _signal.pidfd_send_signal(self.pidfd, signal)
            except ProcessLookupError:
                pass

    def close(self) -> None:
        """Give back the descriptors; the process is not touched."""
        if self._status is not None:
            self._status.close()
            self._status = None
        self.close_listener()
        if self.pidfd >= 0:
            os.close(self.pidfd)
            self.pidfd = -1


def spawn(
    argv: Sequence[str], confinement: Confinement, *, fds: Mapping[int, int], env: Mapping[str, str]
) -> Process:
    """Start ``argv`` (an absolute path first); ``fds`` maps the child's numbers to our descriptors.

    Returns at once: ``Process.confirm`` tells whether the program runs. Numbers 0, 1 and 2 are
    /dev/null unless given. Raises ``HostError``.
    """
    if len(os.listdir("/proc/self/task")) != 1:
        raise AssertionError("spawn from a process with several threads")
    if confinement.intercept_open:
        import kata.linux.seccomp_notify  # noqa: F401 (here, so that the child finds it loaded)
    name = os.path.basename(argv[0])
    ours, theirs = fdlib.pair(_socket.SOCK_SEQPACKET)
    try:
        pid = _clone(confinement)
    except OSError as error:
        ours.close()
        theirs.close()
        raise HostError(
            f"cannot start {name}: new namespaces", why=error.strerror or "",
            hint="run as root; see /proc/sys/user/max_*_namespaces",
        ) from None  # fmt: skip
    if pid == 0:
        ours.close()
        _Child(confinement, theirs).run(argv, fds, env)
    theirs.close()
    return Process(name, pid, ours)


def _clone(confinement: Confinement) -> int:
    if confinement.cgroup >= 0:
        try:
            return sys.clone(confinement.namespaces, confinement.cgroup)
        except OSError:
            pass  # an old kernel, or a group that takes no processes
    return sys.clone(confinement.namespaces)


class _Child:
    """The new process between clone and execve; every method is one step, named in errors."""

    def __init__(self, confinement: Confinement, status: _socket.socket) -> None:
        self._c = confinement
        self._status = status
        self._step = "start"

    def run(self, argv: Sequence[str], fds: Mapping[int, int], env: Mapping[str, str]) -> None:
        """Do all steps and execute; never returns."""
        try:
            self._prepare(fds)
            self._step = f'execute "{argv[0]}"'
            os.execve(argv[0], list(argv), dict(env))
        except BaseException as error:
            why = getattr(error, "strerror", None) or str(error) or type(error).__name__
            detail = getattr(error, "filename", None)
            text = f"{why} ({detail})" if detail and str(detail) not in self._step else why
            try:
                self._status.send(f"{self._step}\0{text}".encode()[:4000])
            finally:
                os._exit(127)

    def _prepare(self, fds: Mapping[int, int]) -> None:
        c = self._c
        self._step = "pass descriptors"
        # the status socket must be out of the way of the numbers to be given
        moved = [(number, _moved(fd)) for number, fd in fds.items()]
        self._status = _socket.socket(fileno=_moved(self._status.detach()))
        null = _moved(os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC))
        moved += [(n, null) for n in (0, 1, 2) if n not in fds]
        os.setsid()
        self._signals()
        self._join()
        if c.hostname:
            self._step = "set the host name"
            sys.sethostname(c.hostname)
        if c.namespaces & sys.CLONE_NEWNS:
            self._root()
        self._step = "set resource limits"
        for resource, value in c.rlimits:
            limit = value.to_bytes(8, "little") * 2
            sys.syscall(_SYS_PRLIMIT64, 0, resource, limit, None, what=f"prlimit {resource}")
        self._identity()
        self._follow_parent()
        self._step = "pass descriptors"
        sys.syscall(sys.SYS_CLOSE_RANGE, 0, 0xFFFFFFFF, _CLOSE_RANGE_CLOEXEC, what="close_range")
        for number, fd in moved:
            os.dup2(fd, number, inheritable=True)
        if c.intercept_open:
            self._intercept()

    def _join(self) -> None:
        """Into version 1's groups: cheap for oneself with one thread, dear for anyone else."""
        for path in self._c.cgroup_tasks:
            try:
                fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
                try:
                    os.write(fd, b"0")
                finally:
                    os.close(fd)
            except OSError:
                pass  # no group is no reason not to run

    @staticmethod
    def _signals() -> None:
        for number in (_signal.SIGPIPE, _signal.SIGINT, _signal.SIGTERM, _signal.SIGHUP, 25):
            _signal.signal(number, _signal.SIG_DFL)
        _signal.pthread_sigmask(_signal.SIG_SETMASK, ())

    def _root(self) -> None:
        c = self._c
        self._step = "make mounts private"
        sys.mount("", "/", None, sys.MS_REC | sys.MS_PRIVATE)
        sources = []
        for bind in c.binds:
            self._step = f'open "{bind.source}"'
            sources.append(os.open(bind.source, os.O_PATH | os.O_CLOEXEC))
        self._step = "make the root"
        devices = [(d, os.stat(d)) for d in c.devices]
        options = f"size={_ROOT_SIZE},nr_inodes=2048,mode=755"
        sys.mount("kata", _SCRATCH, "tmpfs", sys.MS_NOSUID | sys.MS_NODEV, options)
        for bind, fd in zip(c.binds, sources, strict=True):
            self._step = f'bind "{bind.source}"'
            self._bind(bind, fd)
        for tree in c.trees:
            self._step = f'attach "{tree.target}"'
            _make_target(_SCRATCH + tree.target, tree.fd)
            sys.attach_tree(tree.fd, _SCRATCH + tree.target)
        for path in c.directories:
            self._step = f'make "{path}"'
            os.makedirs(_SCRATCH + path, exist_ok=True)
        if c.proc:
            self._proc(c.proc)
        for target, text in c.links:
            self._step = f'link "{target}"'
            os.symlink(text, _SCRATCH + target)
        if devices:
            self._devices(devices)
        self._step = "change the root"
        os.chdir(_SCRATCH)
        sys.pivot_root(".", ".")
        sys.umount(".", sys.MNT_DETACH)
        os.chdir("/")
        sys.mount("", "/", None, _REMOUNT | sys.MS_RDONLY)

    def _bind(self, bind: Bind, fd: int) -> None:
        target = _SCRATCH + bind.target
        _make_target(target, fd)
        flags = sys.MS_BIND | (sys.MS_REC if bind.recursive else 0)
        sys.mount(f"/proc/self/fd/{fd}", target, None, flags)
        os.close(fd)
        attributes = sys.MOUNT_ATTR_NOSUID | sys.MOUNT_ATTR_NODEV
        if bind.readonly:
            attributes |= sys.MOUNT_ATTR_RDONLY
        sys.mount_setattr(target, sys.AT_RECURSIVE if bind.recursive else 0, attributes)

    def _proc(self, entries: tuple[str, ...]) -> None:
        self._step = "mount /proc"
        whole = _SCRATCH + "/.proc"
        flags = sys.MS_NOSUID | sys.MS_NODEV | sys.MS_NOEXEC
        os.mkdir(whole)
        sys.mount("proc", whole, "proc", flags)
        for entry in entries:
            self._step = f'bind "/proc/{entry}"'
            target = f"{_SCRATCH}/proc/{entry}"
            fd = os.open(f"{whole}/{entry}", os.O_PATH | os.O_CLOEXEC)
            _make_target(target, fd)
            sys.mount(f"/proc/self/fd/{fd}", target, None, sys.MS_BIND)
            sys.mount("", target, None, flags | sys.MS_REMOUNT | sys.MS_BIND | sys.MS_RDONLY)
            os.close(fd)
        sys.umount(whole, sys.MNT_DETACH)
        os.rmdir(whole)

    def _devices(self, devices: list[tuple[str, os.stat_result]]) -> None:
        c = self._c
        os.makedirs(_SCRATCH + "/dev", 0o755, exist_ok=True)
        options = f"size={_ROOT_SIZE},nr_inodes=64,mode=755"
        sys.mount("dev", _SCRATCH + "/dev", "tmpfs", sys.MS_NOSUID | sys.MS_NOEXEC, options)
        for path, stat in devices:
            self._step = f'make device "{path}"'
            os.makedirs(os.path.dirname(_SCRATCH + path), 0o755, exist_ok=True)
            os.mknod(_SCRATCH + path, 0o600 | stat.st_mode & 0o170000, stat.st_rdev)
            os.chown(_SCRATCH + path, c.uid, c.gid)

    def _identity(self) -> None:
        c = self._c
        self._step = "drop privileges"
        sys.prctl(sys.PR_SET_SECUREBITS, _SECUREBITS)
        os.setgroups([])
        os.setresgid(c.gid, c.gid, c.gid)
        os.setresuid(c.uid, c.uid, c.uid)
        for number in range(_LAST_CAPABILITY + 1):
            if not c.capabilities >> number & 1:
                try:
                    sys.prctl(sys.PR_CAPBSET_DROP, number)
                except OSError:
                    break  # EINVAL: past the last that this kernel knows
        sys.capset(c.capabilities, c.capabilities, c.capabilities)
        sys.prctl(sys.PR_CAP_AMBIENT, sys.PR_CAP_AMBIENT_CLEAR_ALL)
        for number in range(_LAST_CAPABILITY + 1):
            if c.capabilities >> number & 1:
                sys.prctl(sys.PR_CAP_AMBIENT, sys.PR_CAP_AMBIENT_RAISE, number)
        if c.no_new_privs:
            sys.prctl(sys.PR_SET_NO_NEW_PRIVS, 1)

    def _follow_parent(self) -> None:
        """Ask for SIGKILL when the parent ends, which it may have; a change of uid forgets it."""
        if not self._c.die_with_parent:
            return
        self._step = "follow the parent"
        sys.prctl(sys.PR_SET_PDEATHSIG, int(_signal.SIGKILL))
        poller = select.poll()
        poller.register(self._status, 0)
        if poller.poll(0):  # POLLHUP: nobody holds the other end
            os._exit(127)

    def _intercept(self) -> None:
        from kata.linux import seccomp_notify

        self._step = "intercept opens"
        listener = seccomp_notify.install()
        fdlib.send(self._status, b"listener", [listener])
        os.close(listener)


def _make_target(target: str, fd: int) -> None:
    """Something to mount ``fd`` on: a directory or a file, as it is one."""
    if os.stat(fd).st_mode & 0o170000 == 0o040000:
        os.makedirs(target, 0o755, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(target), 0o755, exist_ok=True)
        os.close(os.open(target, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o444))


def _moved(fd: int) -> int:
    """A duplicate (close-on-exec) with a number that no program is given."""
    return fcntl.fcntl(fd, _F_DUPFD_CLOEXEC, 200)


def program_root(program: str) -> tuple[tuple[Bind, ...], tuple[tuple[str, str], ...]]:
    """Binds and links that let ``program`` and its shared libraries be loaded."""
    binds = [Bind("/usr", "/usr")]
    links = []
    for name in ("/bin", "/lib", "/lib64"):
        if os.path.islink(name):
            links.append((name, os.readlink(name)))
        elif os.path.isdir(name):
            binds.append(Bind(name, name))
    if os.path.exists("/etc/ld.so.cache"):
        binds.append(Bind("/etc/ld.so.cache", "/etc/ld.so.cache"))
    real = os.path.realpath(program)
    if not real.startswith(("/usr/", "/bin/")):
        directory = os.path.dirname(real)
        binds.append(Bind(directory, directory))
    return tuple(binds), tuple(links)


def empty_root(process: Process, targets: Iterable[str], *, keep: str = "/") -> None:
    """Take ``targets`` (mounts, or entries of the root) out of a process's root, for good.

    Directories that get empty go too, up to ``keep``, which stays. What it has mapped or opened
    stays usable. Raises ``HostError``.
    """

    def work() -> None:
        for target in targets:
            _remove(target, keep)

    _change_root(process, work)


def add_trees(process: Process, trees: Iterable[Tree], *, keep: str = "/") -> None:
    """Attach more trees in a process's root, or none; ``keep`` as for ``empty_root``.

    Raises ``HostError``.
    """

    def work() -> None:
        done = []
        try:
            for tree in trees:
                _make_target(tree.target, tree.fd)
                done.append(tree.target)
                sys.attach_tree(tree.fd, tree.target)
        except OSError:
            for target in done:
                _remove(target, keep)
            raise

    _change_root(process, work)


def _change_root(process: Process, work: Callable[[], None]) -> None:
    """Do something in the mount namespace of a process, with its root writable."""
    import _thread

    done = _thread.allocate_lock()
    done.acquire()
    failure: list[OSError] = []

    def run() -> None:  # in a thread: only a thread of its own can have another root directory
        try:
            sys.unshare(sys.CLONE_FS)
            sys.setns(process.pidfd, sys.CLONE_NEWNS)
            sys.mount("", "/", None, _REMOUNT)
            try:
                work()
            finally:
                sys.mount("", "/", None, _REMOUNT | sys.MS_RDONLY)
        except OSError as error:
            failure.append(error)
        finally:
            done.release()

    _thread.start_new_thread(run, ())
    done.acquire()
    if failure:
        raise HostError(f"cannot change the root of {process.name}", why=str(failure[0]))


def _remove(target: str, keep: str) -> None:
    try:
        sys.umount(target, sys.MNT_DETACH | sys.UMOUNT_NOFOLLOW)
    except OSError as error:
        if error.errno != 22:  # EINVAL: not a mount, but a link
            raise
    while target != keep:
        try:
            if os.path.isdir(target) and not os.path.islink(target):
                os.rmdir(target)
            else:
                os.unlink(target)
        except OSError:
            return  # another target lies in the same directory
        target = os.path.dirname(target)
