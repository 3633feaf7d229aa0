"""Volumes that the guest has copies of: a thread that watches them, and tells the guest.

The one rule: a directory is watched before it is read, so no change is missed; where the host has
no watch left (``fs.inotify.max_user_instances``), it is looked at every other second.
"""

from __future__ import annotations

import _thread
import os
import select

from kata.errors import HostError, KataError
from kata.linux import inotify, syscalls
from kata.runtime.lifetime import note
from kata.storage import tree
from kata.storage.common import point_of
from kata.storage.sources import version
from kata.wire.agent_api import UpdateTreeRequest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from kata.runtime.rpc import Client
    from kata.storage.plan import Share
    from kata.wire.agent_api import Node

QUIET_MS, MOST_QUIETS = 20, 25  # without a change until it is told; at most so many times
LOOK_MS = 2000


class _Volume:
    """A directory of the host, and what the guest has of it."""

    def __init__(self, share: Share, fd: int) -> None:
        self.source = share.source
        self.fd = fd
        self.sent: tuple[Node, ...] = share.copy or ()
        self.complaint = ""


class Followed:
    """The volumes of a sandbox that are copied."""

    def __init__(self) -> None:
        self._volumes: dict[str, _Volume] = {}
        self._changing = _thread.allocate_lock()  # which there are
        self._client: Client | None = None
        self._closed = False
        self._woken, self._wake = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._watch = -1
        self._ended = _thread.allocate_lock()

    def take(self, shares: Iterable[Share], fds: Mapping[str, int]) -> None:
        """Know of those of a container; ``fds`` has a descriptor for each source.

        What is kept is a mount of its own: the host's can be unmounted. Raises ``HostError``.
        """
        for share in shares:
            if share.copy is None or share.name in self._volumes:
                continue
            try:
                fd = syscalls.clone_tree(fds[share.source], syscalls.MOUNT_ATTR_RDONLY)
            except OSError as error:
                raise HostError(
                    f'volume source "{share.source}"', why=error.strerror or str(error)
                ) from None
            with self._changing:
                self._volumes[share.name] = _Volume(share, fd)

    def drop(self, shares: Iterable[Share]) -> tuple[Share, ...]:
        """Forget those that are gone; the others among them, which are served."""
        with self._changing:
            for share in shares:
                if share.copy is not None and share.name in self._volumes:
                    os.close(self._volumes.pop(share.name).fd)
        return tuple(share for share in shares if share.copy is None)

    def start(self, client: Client) -> None:
        """From now on, tell the guest; once more, of a container that has come."""
        with self._changing:
            if self._closed or not self._volumes:
                return
            if self._client is None:
                self._client = client
                self._ended.acquire()
                _thread.start_new_thread(self._follow, ())
            else:
                os.write(self._wake, b"1")

    def close(self) -> None:
        """Tell nothing any more; the connection has ended. Any number of times."""
        with self._changing:
            if self._closed:
                return
            self._closed = True
            os.close(self._wake)
        if self._client is not None:
            self._ended.acquire()
        os.close(self._woken)
        for volume in self._volumes.values():
            os.close(volume.fd)
        self._volumes.clear()

    def _follow(self) -> None:
        poll = select.poll()
        poll.register(self._woken, select.POLLIN)
        try:
            self._watch = inotify.open_watch()
            poll.register(self._watch, select.POLLIN)
        except OSError:
            pass  # looked at in turns
        try:
            while not self._closed:
                timeout = None if self._refresh() else LOOK_MS
                poll.poll(timeout)
                self._until_quiet()
        finally:
            if self._watch >= 0:
                os.close(self._watch)
            self._ended.release()

    def _until_quiet(self) -> None:
        """A burst is one change: kubelet makes a directory, fills it, swaps the link."""
        try:
            os.read(self._woken, 64)
        except BlockingIOError:
            pass
        poll = select.poll()
        if self._watch >= 0:
            poll.register(self._watch, select.POLLIN)
            inotify.drain(self._watch)
        for _ in range(MOST_QUIETS):
            if not poll.poll(QUIET_MS) or self._closed or not inotify.drain(self._watch):
                return

    def _refresh(self) -> bool:
        """Tell of what has changed; whether all is watched."""
        watched = True
        for name in list(self._volumes):
            with self._changing:
                volume = self._volumes.get(name)
                fd = os.dup(volume.fd) if volume is not None else -1
            if volume is None:
                continue
            try:
                watched = self._tell(name, volume, fd) and watched
            finally:
                os.close(fd)
        return watched

    def _tell(self, name: str, volume: _Volume, fd: int) -> bool:
        watched = True

        def watch(directory: int) -> None:
            nonlocal watched
            try:
                inotify.add(self._watch, directory)
            except OSError:
                watched = False

        try:
            before = version(fd)
            nodes = tree.read(fd, tree.MOST_LATER, watch)
            if version(fd) != before:
                return False
            if nodes != volume.sent:
                assert self._client is not None
                request = UpdateTreeRequest(mount_point=point_of(name), nodes=list(nodes))
                self._client.call("UpdateTree", request)
                volume.sent = nodes
            volume.complaint = ""
        except tree.TooMuch:
            self._complain(volume, "it has become too large to be copied")
        except FileNotFoundError:
            return False  # it changes at this moment
        except OSError as error:
            self._complain(volume, error.strerror or str(error))
            return False
        except KataError as error:
            self._complain(volume, str(error))
            return False
        return watched

    def _complain(self, volume: _Volume, why: str) -> None:
        if not self._closed and why != volume.complaint:
            volume.complaint = why
            note(f'volume "{volume.source}": the container sees it as it was: {why}')
