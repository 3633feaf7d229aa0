"""A sandbox's control group on the host, and how its processes get there.

A VMM that is started for a sandbox is born in its group; one of the pool comes from elsewhere, and
the stand-ins and the supervisor always do. The kernel makes each move wait, so they happen while
the guest works.
"""

from __future__ import annotations

import _thread

from kata.errors import InvalidInput
from kata.resources.group import Entry, create

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kata.resources.group import Group
    from kata.resources.plan import Limits
    from kata.runtime.workload import Workload


class HostGroup:
    """The group; ``group`` is None for a sandbox that is nobody's yet."""

    def __init__(self) -> None:
        self.group: Group | None = None
        self._brought: tuple[int, ...] = ()
        self._entering = _thread.allocate_lock()

    def make(self, first: Workload, limits: Limits) -> Entry:
        """Make it for a sandbox's first container. Raises ``InvalidInput`` for its cpuset."""
        parent, name = first.group
        if not name:
            return Entry()
        if first.systemd_slice:
            from kata.resources import systemd

            systemd.start(systemd.Unit(first.systemd_slice, name), f"kata sandbox {first.id}")
        self.group = create(name, limits, parent=parent)
        refused = [w for w in self.group.warnings if "cpuset" in w]
        if refused and first.engine:
            raise InvalidInput("linux.resources.cpu cannot be had", why=refused[0])
        return self.group.entry()

    def bring(self, pids: tuple[int, ...]) -> None:
        """Processes that were born elsewhere: they are in when ``enter`` returns."""
        self._brought = pids
        self.enter_meanwhile(())

    def enter(self, pids: tuple[int, ...]) -> None:
        """Move processes of ours in; best effort."""
        with self._entering:
            if self.group is not None:
                self.group.enter((*self._brought, *pids))

    def enter_meanwhile(self, pids: tuple[int, ...]) -> None:
        """The same in the background; ``enter`` then finds them inside."""
        _thread.start_new_thread(self.enter, (pids,))
