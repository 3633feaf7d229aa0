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
from kata.machine.description import SHARE_PATH
from kata.storage import trees, virtiofsd
from kata.wire.record import record, replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from kata.storage.plan import Share

_SOCKET_FD = 3
# its way to reopen files, and what its start looks at
_PROC = (  # what one daemon or the other reads while it starts; gone before it serves
    "self/fd", "self/status", "self/mountinfo", "1/status", "sys/fs/file-max", "sys/fs/nr_open",
    "sys/kernel/cap_last_cap",
)  # fmt: skip
_READY_S = 10.0
_POLL_S = 0.001
_LOG_BYTES = 4096
_RLIMIT_NOFILE, _RLIMIT_CORE = 7, 4
# for its own chroot and to empty its bounding set: it gives these up
_CAP_SETPCAP, _CAP_SYS_CHROOT = 1 << 8, 1 << 18
# and to act for others (setfsuid): what it makes is then theirs from the first moment; and to give
# programs capabilities, which 9p has no message for that Debian's kernel sends
_CAP_SETGID, _CAP_SETUID, _CAP_SETFCAP = 1 << 6, 1 << 7, 1 << 31
CAPABILITIES = trees.FILE_RIGHTS | _CAP_SETGID | _CAP_SETUID | _CAP_SETFCAP


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
        trees.attach(self.process, shares, sources)

    def remove(self, shares: Sequence[Share]) -> None:
        """Serve these no more: what the guest has open of them stays open to it."""
        trees.detach(self.process, shares)

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
    made: tuple[confine.Tree, ...] = ()
    ends: tuple[int, ...] = ()
    reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)  # a full pipe must not stop the daemon
    try:
        made = trees.trees(shares, sources)
        ends = connected(directory)
        confinement, needed = _confinement(replace(daemon, program=program), made)
        serving = virtiofsd.Serving(SHARE_PATH, _SOCKET_FD, daemon.cache, extra=daemon.extra)
        arguments = virtiofsd.virtiofsd_arguments(kind, program, serving)
        fds = {_SOCKET_FD: ends[0], 1: writer, 2: writer}
        process = confine.spawn(arguments, confinement, fds=fds, env={})
    except BaseException:
        _close(reader, *ends[1:])
        raise
    finally:
        trees.close(made)
        _close(writer, *ends[:1])
    return RunningShare(process, ends[1], reader, needed)


def _confinement(
    daemon: Daemon, shared: tuple[confine.Tree, ...]
) -> tuple[confine.Confinement, tuple[str, ...]]:
    """What the daemon may have, and what is in its root only until it runs."""
    binds, links = confine.program_root(daemon.program)
    confinement = confine.Confinement(
        uid=0, gid=0, binds=binds, links=links, trees=shared, directories=(SHARE_PATH,),
        proc=_PROC,
        cgroup=daemon.cgroup, cgroup_tasks=daemon.cgroup_tasks,
        capabilities=CAPABILITIES | _CAP_SETPCAP | _CAP_SYS_CHROOT,
        rlimits=((_RLIMIT_NOFILE, trees.open_files()), (_RLIMIT_CORE, 0)),
    )  # fmt: skip
    return confinement, (
        *(b.target for b in binds),
        *(t for t, _ in links),
        *(f"/proc/{p}" for p in _PROC),
    )


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
        found = trees.status(pid)
    except (FileNotFoundError, ProcessLookupError):
        return False
    return found[b"Seccomp"] == 2 and not found[b"CapEff"] & _CAP_SYS_CHROOT


def _close(*fds: int) -> None:
    for fd in fds:
        os.close(fd)
