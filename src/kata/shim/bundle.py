"""What a shim reads and writes in a bundle, and how containers are named on disk.

The rule: little is imported here, for ``delete`` runs after every container and usually finds
nothing to do.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kata.shim.order import Order

SPEC = "config.json"
ADDRESS = "address"  # where the shim listens
PID = "shim.pid"
LOG = "log"  # a pipe that containerd reads
CONFIG_NOTE = "kata-config"  # the configuration file that the runtime's options name


def store_name(order: Order) -> str:
    """The name that a container is kept by: ids are containerd's, one set for each namespace."""
    return f"{order.namespace}.{order.id}"


def noted_config(bundle: str) -> str | None:
    """The configuration file that ``start`` was given, if it was."""
    try:
        with open(f"{bundle}/{CONFIG_NOTE}", encoding="utf-8") as file:
            return file.read() or None
    except OSError:
        return None
