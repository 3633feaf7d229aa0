"""What the command line of a shim says, as a value."""

from __future__ import annotations

from kata.wire.record import record

PROGRAM = "containerd-shim-kata-v2"


@record
class Order:
    """A command line: its flags, and the action (empty: serve)."""

    action: str = ""
    namespace: str = ""
    address: str = ""
    publish_binary: str = ""
    id: str = ""
    bundle: str = ""
    socket: str = ""
    debug_socket: str = ""
    debug: bool = False
    version: bool = False
    info: bool = False
