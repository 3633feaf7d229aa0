"""A sandbox's share that the VMM serves itself, by 9p: no daemon, and no memory but its own.

The one rule: what is shared is in the VMM's mount namespace and nowhere else. The price is that
the VMM has rights over these files: it makes them as its own user and gives them to whom the guest
says, so it needs neither to be root nor to be another's user for a moment.

Sources: QEMU's hw/9pfs/9p-local.c, security_model=passthrough; capabilities(7).
"""

from __future__ import annotations

from kata.errors import HostError
from kata.storage import trees

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from kata.linux.confine import Process
    from kata.storage.plan import Share


class WiredShare:
    """The part of a VMM that serves files; see ``share.RunningShare``, which is another process.

    ``trees`` are for its start: ``served_by`` closes them.
    """

    vmm_fd = -1
    capabilities = trees.FILE_RIGHTS

    def __init__(
        self, shares: Sequence[Share], sources: Mapping[str, int], vmm_user: int
    ) -> None:
        """Raises ``HostError``."""
        self._user = vmm_user
        self._process: Process | None = None
        self.open_files = trees.open_files()
        self.trees = trees.trees(shares, sources, vmm_user)

    def served_by(self, process: Process) -> None:
        """The VMM that was given the trees."""
        self._process = process
        self.stop()

    @property
    def process(self) -> Process:
        """The VMM's."""
        assert self._process is not None
        return self._process

    def add(self, shares: Sequence[Share], sources: Mapping[str, int]) -> None:
        """Serve more, of a sandbox that runs; all or nothing. Raises ``HostError``."""
        if self._process is None:
            raise HostError("nobody serves the share", why="there is no virtual machine yet")
        trees.attach(self._process, shares, sources, self._user)

    def remove(self, shares: Sequence[Share]) -> None:
        """Serve these no more: what the guest has open of them stays open to it."""
        if self._process is not None:
            trees.detach(self._process, shares)

    def stop(self) -> None:
        """Close what the VMM was never given; the share ends with the VMM."""
        made, self.trees = self.trees, ()
        trees.close(made)
