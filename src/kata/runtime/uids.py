"""A user id of its own for every sandbox's VMM: a free number in a range, held by a lock.

The lock is the kernel's, so a number whose owner was killed is free again at once.
"""

from __future__ import annotations

import fcntl
import os

from kata.errors import HostError

_TRIES = 64


class UserId:
    """A number nobody else has, until ``release``."""

    def __init__(self, directory: str, base: int, count: int) -> None:
        """Raises ``HostError`` if every number tried is taken."""
        os.makedirs(directory, mode=0o700, exist_ok=True)
        for attempt in range(min(_TRIES, count)):
            # the first is the template's maker's; random starts seldom meet
            slot = 1 + (int.from_bytes(os.urandom(4), "little") + attempt) % max(count - 1, 1)
            if self._take(f"{directory}/{slot}"):
                self.uid = base + slot
                return
        raise HostError(
            "no user id is free for the virtual machine",
            why=f"{count} are configured",
            hint="raise uid_count in the configuration",
        )

    def _take(self, path: str) -> bool:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(fd).st_nlink:  # not one that its last owner has just removed
                self._fd, self.path = fd, path
                return True
        except BlockingIOError:
            pass
        os.close(fd)
        return False

    def release(self) -> None:
        """Give the number back."""
        if self._fd >= 0:
            os.unlink(self.path)
            os.close(self._fd)
            self._fd = -1
