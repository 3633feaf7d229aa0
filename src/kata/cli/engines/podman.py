"""Podman: a file in the directory that ``containers.conf(5)`` reads after the main file."""

from __future__ import annotations

from kata.cli.engines.plan import Plan, marked
from kata.errors import Unsupported

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kata.cli.engines.host import Host

PATH = "/etc/containers/containers.conf.d/50-kata.conf"
OLDEST = (4, 0)  # that is sure to read the directory


def plan(host: Host) -> Plan:
    """The runtime ``kata``. Raises ``HostError``, ``Unsupported``."""
    version = host.version("podman")
    if version < OLDEST:
        raise Unsupported(
            f"Podman {'.'.join(map(str, version))} is too old",
            why=f"files in {PATH.rpartition('/')[0]} are read from version 4.0 on",
        )
    return Plan(
        "podman", PATH, text(host.program("kata-runtime")),
        then="podman --runtime kata run --rm docker.io/library/debian:12 uname -r",
    )  # fmt: skip


def text(runtime: str) -> str:
    """The file."""
    return marked("podman", f'[engine.runtimes]\nkata = ["{runtime}"]\n')
