"""``kata factory serve``: keeps a pool of ready sandboxes, and gives them away.

One process, one thread, which forks a member whenever one is missing: what members have in common
(the interpreter with all it has loaded) is in memory once. The rule: it never holds what it gave
away; a member lives on its own from then on, and dies with the keeper before.
"""

from __future__ import annotations

import _signal
import fcntl
import gc
import os
import select
import time
from _socket import (
    AF_UNIX,
    SO_PEERCRED,
    SOCK_CLOEXEC,
    SOCK_NONBLOCK,
    SOCK_SEQPACKET,
    SOL_SOCKET,
    socket,
)

from kata.errors import AlreadyExists, HostError, KataError
from kata.runtime import ready
from kata.runtime.control import Pinned, send_with_fds
from kata.runtime.pool import LIST, TAKE, fingerprint, pair
from kata.runtime.rehearsal import make_root
from kata.runtime.store import POOL_SOCKET, Store
from kata.wire.quickjson import dumps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from kata.config.settings import Config
    from kata.runtime.machines import Launch
    from kata.runtime.ready import Adopter

    Decide = Callable[[], tuple[Config, Launch]]

_LOCK = "cache/factory.lock"
_REHEARSAL = "cache/rehearsal"  # the bundle, in the state root
_BACKLOG = 128
_MOST_REQUEST = 64 << 10  # bytes
_NAMESPACES = ("mnt", "pid", "user", "net", "ipc", "uts", "cgroup")
# after one was taken, before another is made: whoever took it needs the processors
_QUIET_S, _LONGEST_S = 1.0, 10.0
_IDLE_SHARE, _LOOK_S = 0.25, 0.5  # of all processors, seen over so long
_LATER_S = (1.0, 5.0, 30.0, 60.0)  # after so many failures in a row
_AGAIN_S = 5.0  # how often it is looked whether settings or template changed
_STARTING, _READY = "starting", "ready"


class _Member:
    """A member as the keeper knows it."""

    def __init__(self, pid: int, sock: socket) -> None:
        self.pid, self.sock = pid, sock
        self.state = _STARTING
        self.since = time.time()


class Keeper:
    """The pool: ``size`` members for what ``decide`` says."""

    def __init__(
        self, decide: Decide, size: int, adopters: Mapping[str, Adopter],
        say: Callable[[str], None], pack: Callable[[str, str], object],
    ) -> None:  # fmt: skip
        """``pack`` is for ``rehearsal.make_root``."""
        self._decide, self._size, self._adopters, self._say = decide, size, adopters, say
        self._pack = pack
        self._config, self._launch = decide()
        self._print = fingerprint(self._config, self._launch)
        self._root = self._config.runtime.state_root
        self._members: list[_Member] = []
        self._failures = 0
        self._not_before = self._looked = 0.0
        self._lock, self._listener = -1, socket(
            AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK
        )  # fmt: skip
        self._ending = False
        self._busy_until, self._ticks = 0.0, processor_ticks()
        self._own = _namespaces("self")

    def run(self) -> None:
        """Keep it until a signal ends it. Raises ``AlreadyExists``, ``HostError``."""
        if self._launch.template is None:
            raise HostError(
                "a pool needs templates", why="enable_template is false in the configuration"
            )
        self._listen()
        waker, wakened = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        _signal.set_wakeup_fd(wakened, warn_on_full_buffer=False)
        for number in (_signal.SIGTERM, _signal.SIGINT, _signal.SIGHUP, _signal.SIGCHLD):
            _signal.signal(number, self._on_signal)
        try:
            ready.sweep(self._root)
            make_root(f"{self._root}/{_REHEARSAL}", self._pack)
            _load()
            gc.collect()
            gc.freeze()  # the members share what is here
            self._say(f"keeping {self._size} ready, in {self._root}/{POOL_SOCKET}")
            while not self._ending:
                self._fill()
                self._turn(waker)
        finally:
            self._close()

    def _listen(self) -> None:
        store = Store(self._root)
        store.check_writable()
        try:
            os.makedirs(f"{self._root}/{os.path.dirname(_LOCK)}", mode=0o700, exist_ok=True)
        except OSError as error:
            raise store.unwritable(error.strerror or str(error)) from None
        self._lock = os.open(f"{self._root}/{_LOCK}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AlreadyExists(
                "a factory serves already", why=f'it holds "{self._root}/{_LOCK}"',
                hint="kata factory pool shows what it has",
            ) from None  # fmt: skip
        pinned = Pinned(self._root)
        try:
            if os.path.lexists(f"{pinned.path}/{POOL_SOCKET}"):
                os.unlink(f"{pinned.path}/{POOL_SOCKET}")
            self._listener.bind(f"{pinned.path}/{POOL_SOCKET}")
            os.chmod(f"{pinned.path}/{POOL_SOCKET}", 0o600)
            self._listener.listen(_BACKLOG)
        except OSError as error:
            raise HostError(
                f'cannot listen on "{self._root}/{POOL_SOCKET}"', why=error.strerror or str(error)
            ) from None
        finally:
            pinned.close()

    def _on_signal(self, number: int, _frame: object) -> None:
        if number != _signal.SIGCHLD:
            self._ending = True

    def _close(self) -> None:
        """End: members that are nobody's end by themselves, when their connection does."""
        _signal.set_wakeup_fd(-1)
        try:
            os.unlink(f"{self._root}/{POOL_SOCKET}")
        except OSError:
            pass
        self._listener.close()
        for member in self._members:
            member.sock.close()
        for member in self._members:
            try:
                os.waitpid(member.pid, 0)
            except ChildProcessError:
                pass  # it was taken note of already
        self._members.clear()
        if self._lock >= 0:
            os.close(self._lock)

    # members

    def _fill(self) -> None:
        """Make one that is missing, if it is time; one at a time, for they would share the time."""
        if any(member.state == _STARTING for member in self._members):
            return
        now = time.monotonic()
        if len(self._members) < self._size and now >= self._not_before:
            if now < self._busy_until and not self._idle():
                self._not_before = now + _LOOK_S
            else:
                self._members.append(self._fork())

    def _idle(self) -> bool:
        """Whether processors had nothing to do since this was last asked."""
        before, self._ticks = self._ticks, processor_ticks()
        idle, every = (now - then for now, then in zip(self._ticks, before, strict=True))
        return idle >= every * _IDLE_SHARE

    def _fork(self) -> _Member:
        ours, theirs = pair()
        pid = os.fork()
        if pid == 0:
            _signal.set_wakeup_fd(-1)
            _signal.signal(_signal.SIGCHLD, _signal.SIG_DFL)
            root = f"{self._root}/{_REHEARSAL}"
            ready.serve(theirs, self._config, self._launch, self._adopters, root)
        theirs.close()
        return _Member(pid, ours)

    def _heard(self, member: _Member) -> None:
        """A member is ready, or has ended."""
        try:
            data = member.sock.recv(4096)
        except OSError:
            data = b""
        if data == ready.READY:
            member.state, member.since = _READY, time.time()
            self._failures = 0
            return
        if member.state == _STARTING:
            later = _LATER_S[min(self._failures, len(_LATER_S) - 1)]
            self._failures += 1
            self._not_before = time.monotonic() + later
            why = data[1:].decode(errors="replace") or "its process ended"
            self._say(f"a sandbox did not get ready: {why}; the next try is in {later:.0f} s")
        else:
            self._say("a ready sandbox has ended by itself")
        self._drop(member)

    def _drop(self, member: _Member) -> None:
        member.sock.close()
        self._members.remove(member)

    def _turn(self, waker: int) -> None:
        """Wait for what comes next, and see to it."""
        poll = select.poll()
        for fd in (waker, self._listener.fileno(), *(m.sock.fileno() for m in self._members)):
            poll.register(fd, select.POLLIN)
        waited = max(0.0, self._not_before - time.monotonic())
        seen = {fd for fd, _ in poll.poll(waited * 1000 + 1 if waited else 1000)}
        if waker in seen:
            os.read(waker, 4096)
        self._reap()
        for member in [m for m in self._members if m.sock.fileno() in seen]:
            self._heard(member)
        if self._listener.fileno() in seen:
            self._serve()

    def _reap(self) -> None:
        """Take the ends of children, of those too that were given away."""
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            pass

    # who asks

    def _serve(self) -> None:
        try:
            fd, _ = self._listener._accept()  # type: ignore[attr-defined]
        except OSError:
            return
        sock = socket(fileno=fd)
        sock.settimeout(1.0)
        try:
            asked = sock.recv(_MOST_REQUEST)
            if asked == LIST:
                sock.send(dumps(self._listed()).encode())
            elif asked.startswith(TAKE):
                self._give(sock, asked[len(TAKE) :].decode(errors="replace"))
        except OSError:
            pass  # who asked went away
        finally:
            sock.close()

    def _listed(self) -> list[dict[str, Any]]:
        machine = self._launch.machine
        return [
            {
                "pid": member.pid, "state": member.state, "since": member.since,
                "memory_mib": machine.memory_mib, "vcpus": machine.vcpus,
                "accelerator": machine.accelerator,
            }
            for member in self._members
        ]  # fmt: skip

    def _give(self, sock: socket, wanted: str) -> None:
        """Hand a ready member over, if what is wanted is what it is."""
        if wanted != self._print:
            sock.send(TAKE)
            self._look_again()
            return
        pid = int.from_bytes(sock.getsockopt(SOL_SOCKET, SO_PEERCRED, 12)[:4], "little")
        found = next((m for m in self._members if m.state == _READY), None)
        if found is None or _namespaces(pid) != self._own:
            sock.send(TAKE)
            return
        send_with_fds(sock, str(found.pid).encode(), [found.sock.fileno()])
        self._drop(found)
        now = time.monotonic()
        self._not_before, self._busy_until = now + _QUIET_S, now + _LONGEST_S
        self._ticks = processor_ticks()

    def _look_again(self) -> None:
        """Settings, guest image or template may be others now; members for the old ones go."""
        if time.monotonic() - self._looked < _AGAIN_S:
            return
        self._looked = time.monotonic()
        try:
            config, launch = self._decide()
        except KataError as error:
            self._say(str(error))
            return
        if fingerprint(config, launch) != self._print and launch.template is not None:
            self._say("the settings or the template changed: making others")
            self._config, self._launch = config, launch
            self._print = fingerprint(config, launch)
            for member in list(self._members):
                self._drop(member)


def processor_ticks() -> tuple[int, int]:
    """Idle time and all time of all processors, clock ticks since the start (proc_stat(5))."""
    with open("/proc/stat", "rb") as file:
        counts = [int(word) for word in file.readline().split()[1:9]]
    return counts[3] + counts[4], sum(counts)


def _load() -> None:
    """What every member will need and nothing here does: in memory once, by being loaded now."""
    import kata.linux.statfs
    import kata.network.sample
    import kata.oci.state
    import kata.runtime.forward
    import kata.runtime.networking
    import kata.runtime.rpc
    import kata.runtime.update
    import kata.storage.share
    import kata.storage.virtiofsd
    import kata.storage.wired  # noqa: F401


def _namespaces(pid: int | str) -> tuple[str, ...]:
    """What a process sees of the host; empty if it is gone."""
    try:
        return tuple(os.readlink(f"/proc/{pid}/ns/{kind}") for kind in _NAMESPACES)
    except OSError:
        return ()
