"""What the rest of kata knows of a hypervisor: a machine plus bindings gives a running ``Vm``.

The one rule: small. Whatever only some hypervisors can do is declared in
``machine.capabilities`` and asked for before anything is started, never refused half way.

A start has two halves, so that the caller can work while the VMM does: ``start`` (of a driver,
e.g. ``hypervisors.qemu.driver``) spawns and returns; ``Vm.wait_ready`` finishes. ``start`` must be
called by the main thread of a single-threaded process, which has to live as long as the VM.
"""

from __future__ import annotations

from kata.wire.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket as Socket  # noqa: N812
    from collections.abc import Callable
    from typing import Protocol

    from kata.linux.confine import Process, Tree

    class Vm(Protocol):
        """A running virtual machine. Methods may be called by any thread unless said otherwise."""

        @property
        def agent(self) -> Socket:
            """Our end of the agent's channel: a connected stream socket, there from the start."""

        @property
        def pid(self) -> int:
            """The VMM's process id on the host."""

        @property
        def process(self) -> Process:
            """The VMM's process."""

        def wait_ready(self, timeout: float) -> None:
            """Wait until the guest runs (restored, or begun to boot), confined for good.

            Called once, by the main thread. From then on its death is watched.
            Raises ``HypervisorError`` with the VMM's message and the console, or ``HostError``.
            """

        def on_death(self, callback: Callable[[str], None]) -> None:
            """Call ``callback(reason)`` once, in another thread, when the VMM ends by itself."""

        def death(self) -> str:
            """Why the VMM is gone, "" while it lives."""

        def console_tail(self) -> str:
            """The end of what the guest wrote to its console (at most 64 KiB)."""

        def pause(self) -> None:
            """Stop all virtual processors."""

        def resume(self) -> None:
            """Let them run."""

        def plug_share(self) -> None:
            """Plug the file share whose daemon is bound; the guest finds its tag."""

        def plug_nic(self, slot: int, tap: int, vhost: int) -> None:
            """Plug one more network card; the guest finds it by ``machine.description.mac_of``.

            Raises ``Unsupported`` (``network_hotplug``) or ``HypervisorError``.
            """

        def plug_disk(self, number: int, fd: int, *, readonly: bool, is_device: bool) -> None:
            """Plug a disk; the guest finds it by ``machine.description.disk_serial``.

            ``fd`` is a block device's or a file's; the caller closes it. Raises ``Unsupported``
            (``block_hotplug``) or ``HypervisorError``.
            """

        @property
        def binds_disks(self) -> bool:
            """Whether ``bind_disk`` works, once it is ready."""

        def bind_disk(self, slot: int, fd: int) -> None:
            """Put a file behind a wired disk that is empty, to be read; the caller closes ``fd``.

            The guest is not told: it must not have read that disk. Raises ``HypervisorError``.
            """

        def unplug_disk(self, number: int) -> None:
            """Take it away, once the guest has let go of it. Raises ``HypervisorError``."""

        def plug_memory(self, slot: int, mib: int) -> None:
            """Plug memory into a free slot; the guest takes it in its own time.

            Raises ``HypervisorError``.
            """

        def stop(self) -> None:
            """Kill the VMM, reap it, close everything; in any state, any number of times."""


@record
class Files:
    """What a VMM is given that serves the file share itself (``Machine.share_slot``).

    ``trees`` are attached below ``machine.description.SHARE_PATH`` in its root, and closed by the
    caller; ``capabilities`` is the mask of those it keeps for it, ``open_files`` a limit.
    """

    trees: tuple[Tree, ...]
    capabilities: int
    open_files: int


@record
class Bindings:
    """The descriptors of one start; the caller keeps and closes them (after ``wait_ready``).

    ``memory``: a file to map as the guest's memory; -1: fresh memory. A template's file is given
    read-only and mapped privately; with ``Machine.shared_memory`` it must be writable.
    ``memory_source``: a file that ``memory``, still empty, is filled from while the VMM starts.
    ``state``: frozen device state to restore, open for reading at its beginning; -1: cold boot.
    ``disks``: (slot, descriptor, read-only). ``share``: connected vhost-user socket of a virtio-fs
    daemon; ``files``: for a VMM that is one itself, whose share is empty without.
    ``nics``: (slot, tap, vhost-net or -1), one for each slot of the machine.
    """

    memory: int = -1
    memory_source: int = -1
    state: int = -1
    disks: tuple[tuple[int, int, bool], ...] = ()
    share: int = -1
    files: Files | None = None
    nics: tuple[tuple[int, int, int], ...] = ()


@record
class Options:
    """How the VMM process is run: its program, its user, its own system call filter, its group.

    ``scratch``: a directory where a copy of the memory may be put if this kernel cannot hand QEMU
    a descriptor for it (no seccomp notifications).
    """

    program: str
    uid: int
    sandbox: bool = True
    scratch: str = ""
    cgroup: int = -1
    cgroup_tasks: tuple[str, ...] = ()
