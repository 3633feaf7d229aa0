"""Which QEMU there is, and which accelerator really runs a guest.

The one rule: an accelerator is chosen because a guest booted with it, never because a device node
is there. The answer is kept per boot of the host, QEMU and guest image.
"""

from __future__ import annotations

from kata.wire.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kata.machine.description import Machine


@record
class Choice:
    """The accelerator to use, why, and whether the answer came from the cache."""

    accelerator: str
    reason: str
    cached: bool = False


def locate(configured: str) -> str:
    """The path of QEMU's program; raises ``HostError`` if there is none that can be executed."""
    raise NotImplementedError


def choose(machine: Machine, program: str, cache: str, *, wanted: str = "auto") -> Choice:
    """The accelerator for machines like ``machine``, whose own is ignored.

    ``wanted`` kvm or tcg is taken as it is; auto asks the cache (a directory), else boots a
    guest under kvm for a few seconds at most. Forks, so that the caller stays single threaded.
    """
    raise NotImplementedError
