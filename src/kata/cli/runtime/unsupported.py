"""``kata-runtime checkpoint`` and ``restore``: not for containers in virtual machines, yet."""

from __future__ import annotations

from kata.cli.runtime.containers import find
from kata.errors import Unsupported

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kata.cli.parse import Options


def run(options: Options) -> int:
    """Say so."""
    if options.verb == "checkpoint":
        find(options)
    raise Unsupported(
        f"{options.verb} is not supported",
        why="the container runs in a virtual machine, and CRIU works on processes of the host",
    )
