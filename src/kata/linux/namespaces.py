"""Namespaces: the names OCI and /proc/PID/ns give them, and entering them.

The rule: nothing here looks at another process than the one named.
"""

from __future__ import annotations

import _socket
import os
from fcntl import ioctl

from kata.errors import InvalidInput
from kata.linux import syscalls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any, TypeVar

    T = TypeVar("T")

# OCI's name -> (the flag, the file in /proc/PID/ns); runtime-spec, config-linux.md "Namespaces"
KINDS: dict[str, tuple[int, str]] = {
    "user": (syscalls.CLONE_NEWUSER, "user"),
    "ipc": (syscalls.CLONE_NEWIPC, "ipc"),
    "uts": (syscalls.CLONE_NEWUTS, "uts"),
    "network": (syscalls.CLONE_NEWNET, "net"),
    "cgroup": (syscalls.CLONE_NEWCGROUP, "cgroup"),
    "time": (syscalls.CLONE_NEWTIME, "time"),
    "pid": (syscalls.CLONE_NEWPID, "pid"),
    "mount": (syscalls.CLONE_NEWNS, "mnt"),
}


def path_of(kind: str, pid: int | str = "self", proc: str = "/proc") -> str:
    """The file that stands for a process's namespace."""
    return f"{proc}/{pid}/ns/{KINDS[kind][1]}"


def enter(kind: str, path: str) -> None:
    """Enter the namespace that ``path`` stands for; for ``pid``, children will be in it."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        syscalls.setns(fd, KINDS[kind][0])
    finally:
        os.close(fd)


def enter_process(pidfd: int, kinds: tuple[str, ...]) -> None:
    """Enter several namespaces of one process at once (setns(2) with a pidfd, Linux 5.8)."""
    flags = 0
    for kind in kinds:
        flags |= KINDS[kind][0]
    syscalls.setns(pidfd, flags)


def new_time(offsets: Mapping[str, Any]) -> None:
    """A time namespace for the children to come, with OCI's linux.timeOffsets.

    time_namespaces(7): they must be written before the first process is in the namespace.
    """
    syscalls.unshare(syscalls.CLONE_NEWTIME)
    for clock, offset in offsets.items():
        if clock not in ("monotonic", "boottime"):
            raise InvalidInput(f'linux.timeOffsets: unknown clock "{clock}"')
        line = f"{clock} {int(offset.get('secs') or 0)} {int(offset.get('nanosecs') or 0)}\n"
        with open("/proc/self/timens_offsets", "wb", buffering=0) as file:
            file.write(line.encode())


def loopback_up() -> None:
    """Bring up ``lo`` of the current network namespace (netdevice(7), SIOCSIFFLAGS)."""
    up_running = 0x41
    request = b"lo".ljust(16, b"\0") + up_running.to_bytes(2, "little") + bytes(22)
    sock = _socket.socket(_socket.AF_INET, _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC)
    try:
        ioctl(sock.fileno(), 0x8914, request)
    finally:
        sock.close()


class Inside:
    """A context in which the calling thread is in another network namespace, and then back.

    Sockets and taps opened inside stay there. Raises ``OSError``.
    """

    def __init__(self, namespace: int) -> None:
        self._namespace = namespace
        self._own = -1

    def __enter__(self) -> None:
        self._own = os.open(path_of("network", "thread-self"), os.O_RDONLY | os.O_CLOEXEC)
        try:
            syscalls.setns(self._namespace, syscalls.CLONE_NEWNET)
        except OSError:
            os.close(self._own)
            raise

    def __exit__(self, *_: object) -> None:
        try:
            syscalls.setns(self._own, syscalls.CLONE_NEWNET)
        finally:
            os.close(self._own)


def with_mounts_of(pid: int, work: Callable[[], T]) -> T:
    """Do something in a thread that has the mount namespace of another process; its result.

    Raises what ``work`` does, and ``OSError``.
    """
    from _thread import allocate_lock, start_new_thread

    done = allocate_lock()
    done.acquire()
    found: list[T] = []
    failure: list[BaseException] = []

    def run() -> None:  # only a thread of its own can have another root directory
        try:
            syscalls.unshare(syscalls.CLONE_FS)
            enter("mount", path_of("mount", pid))
            found.append(work())
        except BaseException as error:
            failure.append(error)
        finally:
            done.release()

    start_new_thread(run, ())
    done.acquire()
    if failure:
        raise failure[0]
    return found[0]


def new_network(path: str = "") -> int:
    """A new network namespace, by descriptor; with ``path`` it is mounted there too.

    Only its loopback is in it, and up. Raises ``OSError``; then nothing is left.
    """
    own = os.open(path_of("network", "thread-self"), os.O_RDONLY | os.O_CLOEXEC)
    made = -1
    try:
        syscalls.unshare(syscalls.CLONE_NEWNET)
        made = os.open(path_of("network", "thread-self"), os.O_RDONLY | os.O_CLOEXEC)
        loopback_up()
        if path:
            _mount_namespace(path)
    except OSError:
        if made >= 0:
            os.close(made)
        raise
    finally:
        syscalls.setns(own, syscalls.CLONE_NEWNET)
        os.close(own)
    return made


def _mount_namespace(path: str) -> None:
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o444))
    try:
        syscalls.mount(path_of("network", "thread-self"), path, None, syscalls.MS_BIND)
    except OSError:
        os.unlink(path)
        raise


def remove_mounted(path: str) -> None:
    """Take away what ``new_network`` mounted; nothing there is fine. Raises ``OSError``."""
    try:
        syscalls.umount(path, syscalls.MNT_DETACH | syscalls.UMOUNT_NOFOLLOW)
    except OSError as error:
        if error.errno not in (2, 22):  # ENOENT; EINVAL: not mounted
            raise
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
