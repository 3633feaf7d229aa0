"""A sandbox's share: one confined virtio-fs daemon that sees the shared things and nothing else.

The one rule: the shared directory exists only in the daemon's own mount namespace, built of
detached copies of the mounts; the host's mount table never shows it, and it ends with the daemon.
A share asked for read-only is read-only on the host's side, whatever the guest does.

Sources: open_tree(2), mount_setattr(2), unix(7), capabilities(7), virtiofsd's documentation.
"""

from __future__ import annotations

import _socket
import os
import time

from kata.errors import HostError
from kata.linux import confine
from kata.linux import syscalls as sys
from kata.storage import virtiofsd
from kata.wire.record import record, replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from kata.storage.plan import Ids, Share

_DIRECTORY = "/shared"
_SOCKET_FD = 3
# its way to reopen files, and what its start looks at
_PROC = (  # what one daemon or the other reads while it starts; gone before it serves
    "self/fd", "self/status", "self/mountinfo", "1/status", "sys/fs/file-max", "sys/fs/nr_open",
    "sys/kernel/cap_last_cap",
)  # fmt: skip
_READY_S = 10.0
_POLL_S = 0.001
_LOG_BYTES = 4096
_EINVAL = 22
_RLIMIT_NOFILE, _RLIMIT_CORE = 7, 4
_OPEN_FILES = 1 << 20
# CAP_CHOWN, DAC_OVERRIDE, FOWNER, FSETID, SETGID, SETUID, MKNOD, SETFCAP: files as root has them
CAPABILITIES = 1 << 0 | 1 << 1 | 1 << 3 | 1 << 4 | 1 << 6 | 1 << 7 | 1 << 27 | 1 << 31
# for its own chroot and to empty its bounding set: it gives these up
_CAP_SETPCAP, _CAP_SYS_CHROOT = 1 << 8, 1 << 18
_CAP_SYS_RESOURCE = 1 << 24


@record
class Daemon:
    """The program and how it serves; ``memory`` is where ``virtiofsd.kind_of`` keeps its answer.

    ``cgroup``, ``cgroup_tasks``: the control group it is born in (``confine.Confinement``).
    """

    program: str
    cache: str = "auto"
    extra: tuple[str, ...] = ()
    memory: str = ""
    cgroup: int = -1
    cgroup_tasks: tuple[str, ...] = ()


class RunningShare:
    """A virtio-fs daemon and the connection that the VMM is to have."""

    def __init__(
        self, process: confine.Process, vmm_fd: int, log_fd: int, needed: tuple[str, ...]
    ) -> None:
        self.process = process
        self.vmm_fd = vmm_fd  # connected vhost-user socket: give it to the VMM, then close_vmm_fd
        self._log_fd = log_fd
        self._needed = needed  # in its root until it runs

    def settle(self) -> None:
        """Wait until it has confined itself, then take all but the share out of its root.

        To be called once, before the guest runs. Raises ``HostError``.
        """
        self.process.confirm()
        deadline = time.monotonic() + _READY_S
        while not _confined(self.process.pid):
            if self.process.poll() is not None:
                raise self.failure()
            if time.monotonic() > deadline:
                raise HostError(
                    "virtiofsd does not come up", why=f"not serving after {_READY_S:.0f} s"
                )
            time.sleep(_POLL_S)
        confine.empty_root(self.process, self._needed)

    def add(self, shares: Sequence[Share], sources: Mapping[str, int]) -> None:
        """Serve more, of a sandbox that runs; all or nothing. Raises ``HostError``."""
        trees: list[confine.Tree] = []
        try:
            for share in shares:
                trees.append(_tree(share, sources[share.name]))  # noqa: PERF401 (kept on failure)
            confine.add_trees(self.process, trees, keep=_DIRECTORY)
        finally:
            _close(*(tree.fd for tree in trees))

    def remove(self, shares: Sequence[Share]) -> None:
        """Serve these no more: what the guest has open of them stays open to it."""
        try:
            targets = [f"{_DIRECTORY}/{share.name}" for share in shares]
            confine.empty_root(self.process, targets, keep=_DIRECTORY)
        except HostError:
            pass  # the daemon has ended, and all of it with it

    def failure(self) -> HostError:
        """The error for a daemon that has ended, with the last lines it wrote."""
        status = self.process.poll()
        how = f"killed by signal {-status}" if status and status < 0 else f"exit status {status}"
        log = self.log()
        return HostError("virtiofsd ended", why=f"{how}: {log}" if log else how)

    def log(self) -> str:
        """What it wrote since the last call, if not too much."""
        try:
            return os.read(self._log_fd, _LOG_BYTES).decode(errors="replace").strip()
        except BlockingIOError:
            return ""

    def close_vmm_fd(self) -> None:
        """The VMM has its copy: when it closes that, the daemon ends by itself."""
        if self.vmm_fd >= 0:
            os.close(self.vmm_fd)
            self.vmm_fd = -1

    def stop(self) -> None:
        """End the daemon and with it the shared directory; may be called again."""
        self.close_vmm_fd()
        if self._log_fd >= 0:
            self.process.kill()
            self.process.wait()
            self.process.close()
            os.close(self._log_fd)
            self._log_fd = -1


def start(
    shares: Sequence[Share], sources: Mapping[str, int], daemon: Daemon, *, directory: str
) -> RunningShare:
    """Start the daemon for ``shares``; ``sources`` has an O_PATH descriptor for each share's name.

    ``directory`` must be ours alone (a socket is there for a moment). The caller must be single
    threaded; it closes ``sources`` when it likes. Returns at once: ``settle`` waits, and tells
    what went wrong. Raises ``HostError``.
    """
    kind = virtiofsd.kind_of(daemon.program, daemon.memory)
    program = os.path.realpath(daemon.program)
    trees: list[confine.Tree] = []
    ends: tuple[int, ...] = ()
    reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)  # a full pipe must not stop the daemon
    try:
        for share in shares:
            trees.append(_tree(share, sources[share.name]))  # noqa: PERF401 (kept on failure)
        ends = connected(directory)
        confinement, needed = _confinement(replace(daemon, program=program), tuple(trees))
        serving = virtiofsd.Serving(_DIRECTORY, _SOCKET_FD, daemon.cache, extra=daemon.extra)
        arguments = virtiofsd.virtiofsd_arguments(kind, program, serving)
        fds = {_SOCKET_FD: ends[0], 1: writer, 2: writer}
        process = confine.spawn(arguments, confinement, fds=fds, env={})
    except BaseException:
        _close(reader, *ends[1:])
        raise
    finally:
        _close(writer, *ends[:1], *(tree.fd for tree in trees))
    return RunningShare(process, ends[1], reader, needed)


def _tree(share: Share, source: int) -> confine.Tree:
    """A detached copy of the mount at a source; devices and set-uid bits mean nothing in it."""
    attributes = sys.MOUNT_ATTR_NOSUID | sys.MOUNT_ATTR_NODEV | sys.MOUNT_ATTR_NOEXEC
    if share.readonly:
        attributes |= sys.MOUNT_ATTR_RDONLY
    try:
        if share.fresh:  # nobody else's: no copy is needed, and older kernels make none
            fd = os.dup(source)
            sys.mount_setattr("", sys.AT_EMPTY_PATH, attributes, directory=fd)
        else:
            fd = sys.clone_tree(source, attributes, recursive=share.recursive)
    except OSError as error:
        raise HostError(f'cannot share "{share.source}"', why=error.strerror or "") from None
    if share.ids is not None:
        try:
            _map_ids(fd, share.ids)
        except OSError as error:
            os.close(fd)
            raise _not_mapped(share, error) from None
    return confine.Tree(fd, f"{_DIRECTORY}/{share.name}")


def _map_ids(tree: int, ids: Ids) -> None:
    """Let the owners of files in a detached mount appear as others. Raises ``OSError``."""
    from kata.linux import users

    (namespace,) = users.new(ids.uids, ids.gids)
    try:
        sys.map_ids(tree, namespace, recursive=ids.recursive)
    finally:
        os.close(namespace)


def _not_mapped(share: Share, error: OSError) -> HostError:
    why = f"{error.filename}: {error.strerror}"
    if error.errno == _EINVAL:
        why = "the host's kernel does not map ids on its file system, or on one below it"
    return HostError(
        f'cannot map ids of the mount "{share.source}"', why=why,
        hint='"idmap" maps the topmost mount alone, "ridmap" those below it too',
    )  # fmt: skip


def _confinement(
    daemon: Daemon, trees: tuple[confine.Tree, ...]
) -> tuple[confine.Confinement, tuple[str, ...]]:
    """What the daemon may have, and what is in its root only until it runs."""
    binds, links = confine.program_root(daemon.program)
    confinement = confine.Confinement(
        uid=0, gid=0, binds=binds, links=links, trees=trees, directories=(_DIRECTORY,),
        proc=_PROC,
        cgroup=daemon.cgroup, cgroup_tasks=daemon.cgroup_tasks,
        capabilities=CAPABILITIES | _CAP_SETPCAP | _CAP_SYS_CHROOT,
        rlimits=((_RLIMIT_NOFILE, _open_files()), (_RLIMIT_CORE, 0)),
    )  # fmt: skip
    return confinement, (
        *(b.target for b in binds),
        *(t for t, _ in links),
        *(f"/proc/{p}" for p in _PROC),
    )


def _open_files() -> int:
    """The limit of open files: the daemon holds one for each inode that the guest remembers."""
    from resource import getrlimit

    hard = getrlimit(_RLIMIT_NOFILE)[1]
    if int(_status("self")[b"CapEff"], 16) & _CAP_SYS_RESOURCE:
        with open("/proc/sys/fs/nr_open", "rb") as stream:
            hard = max(hard, min(_OPEN_FILES, int(stream.read())))
    return hard


def connected(directory: str) -> tuple[int, int]:
    """A listening unix socket with one connection waiting on it, and that connection's end.

    The name lives for microseconds, in a directory that nobody else may enter.
    """
    name = f"{directory}/.vhost-user"
    place = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    # by way of the descriptor: the path of a unix socket has at most 107 bytes
    address = f"/proc/self/fd/{place}/.vhost-user"
    listener = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    client = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    try:
        listener.bind(address)
        try:
            listener.listen(1)
            client.connect(address)
        finally:
            os.unlink(name)
    except OSError as error:
        listener.close()
        client.close()
        raise HostError(f'no socket in "{directory}"', why=error.strerror or "") from None
    finally:
        os.close(place)
    return listener.detach(), client.detach()


def _confined(pid: int) -> bool:
    """Whether it has reached its last steps: its filter is on, and chroot is no more allowed."""
    try:
        fields = _status(pid)
    except (FileNotFoundError, ProcessLookupError):
        return False
    effective = int(fields.get(b"CapEff", b"0"), 16)
    return fields.get(b"Seccomp", b"").strip() == b"2" and not effective & _CAP_SYS_CHROOT


def _status(pid: int | str) -> dict[bytes, bytes]:
    """/proc/PID/status, proc(5)."""
    with open(f"/proc/{pid}/status", "rb") as stream:
        return dict(line.partition(b":")[::2] for line in stream.read().splitlines())


def _close(*fds: int) -> None:
    for fd in fds:
        os.close(fd)
