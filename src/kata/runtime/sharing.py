"""Who serves the share of a sandbox: a daemon beside the VMM, or the VMM itself.

The one rule: which of them it is was decided with the machine (``machines.with_share``), for the
second is wired into it.
"""

from __future__ import annotations

import _thread
import select

from kata.errors import HostError
from kata.hypervisors.interface import Files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

    from kata.config.settings import Config
    from kata.hypervisors.interface import Vm
    from kata.resources.group import Entry
    from kata.storage.plan import Share
    from kata.storage.share import RunningShare
    from kata.storage.wired import WiredShare

    Served: TypeAlias = RunningShare | WiredShare


def by_vmm(
    shares: tuple[Share, ...], sources: dict[str, int], user: int
) -> tuple[WiredShare, Files]:
    """A share for the VMM to serve, running as ``user``, and what it is given for that.

    Raises ``HostError``.
    """
    from kata.storage.wired import WiredShare

    share = WiredShare(shares, sources, user)
    return share, Files(share.trees, share.capabilities, share.open_files)


def by_daemon(
    shares: tuple[Share, ...], sources: dict[str, int], config: Config, entry: Entry, directory: str
) -> RunningShare:
    """Spawn the daemon, in the sandbox's group. Raises ``HostError``."""
    from kata.storage import share, virtiofsd

    settings = config.shared_fs
    if settings.kind == "none":
        raise HostError(
            "directories of the host cannot be shared",
            why='shared_fs is "none"',
            hint="set shared_fs in the configuration to auto",
        )
    daemon = share.Daemon(
        virtiofsd.find(settings.daemon), settings.cache, settings.extra_args,
        f"{config.runtime.state_root}/cache/virtiofsd",
        entry.cgroup, entry.cgroup_tasks,
    )  # fmt: skip
    return share.start(shares, sources, daemon, directory=directory)


def is_plugged(share: Served | None) -> bool:
    """Whether a share is still to be plugged: a daemon's, which the VMM gets when it runs."""
    return share is not None and share.vmm_fd >= 0


def plug(share: RunningShare, vm: Vm, ended: Callable[[RunningShare], None]) -> None:
    """Give a running VMM the daemon's share; ``ended`` is called when the daemon is gone.

    A guest whose file server is gone would hang for ever. Who stops the share does so in another
    thread, and alone may wait for it: it is for ``ended`` to know. Raises ``HostError``.
    """

    def watch() -> None:
        poll = select.poll()
        poll.register(share.process.pidfd, select.POLLIN)
        poll.poll()
        ended(share)

    share.settle()
    vm.plug_share()
    share.close_vmm_fd()
    _thread.start_new_thread(watch, ())
