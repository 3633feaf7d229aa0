"""What is to run in a sandbox: one container's files and configuration, for host and guest.

Two sources, one shape: what ``kata run`` asks for (``run_workload``), and an engine's OCI bundle
(``bundle_workload``). The rule: a workload starts nothing and holds nothing open.
"""

from __future__ import annotations

from kata.wire import quickjson
from kata.wire.agent_api import ExecRequest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection
    from typing import Any, Protocol

    from kata.runtime import control_api
    from kata.storage import plan as storage
    from kata.storage.plan import Plan
    from kata.storage.sources import Source
    from kata.wire.agent_api import CreateContainerRequest, Seccomp

    class Workload(Protocol):
        """What a sandbox asks of a workload, in this order but for ``exec_request``."""

        id: str
        guest_name: str
        hostname: str
        layers: tuple[str, ...]
        first_slot: int  # the wired disk of the lowest layer
        network: int  # a descriptor of the sandbox's network namespace, -1: loopback is enough
        deferred: bool  # whether its files come after the start of the machine, by ``Sandbox.add``
        engine: bool  # whether its control group and its state are an engine's
        systemd_slice: str  # where systemd is to make that group; empty: it is made by hand
        resolv_conf: str  # the host's file that is /etc/resolv.conf inside, if it is an engine's
        group: tuple[str, str]  # parent and name of the control group on the host
        resources: dict[str, Any]  # OCI's linux.resources

        def sources(
            self,
        ) -> tuple[
            tuple[str, ...] | storage.Directory | storage.Disk, list[storage.Volume], list[Source]
        ]:
            """Root file system, volumes, and what they name on the host, pinned."""

        def create_request(
            self, plan: Plan, kernel_release: str, *, settled: bool
        ) -> CreateContainerRequest:
            """What the agent is asked; ``settled``: its template holds all but the program."""

        def exec_request(
            self, wanted: control_api.ExecRequest, fds: Collection[int]
        ) -> ExecRequest:
            """The agent's request for one more process."""


def set_terminal(process: dict[str, Any], wanted: control_api.ExecRequest) -> None:
    """Give a process a terminal, or none, as asked."""
    process["terminal"] = wanted.terminal
    process.pop("consoleSize", None)
    if wanted.terminal and wanted.rows:
        process["consoleSize"] = {"height": wanted.rows, "width": wanted.columns}
    if wanted.terminal and not any(e.startswith("TERM=") for e in process["env"]):
        process["env"] = [*process["env"], "TERM=xterm"]


def exec_request(
    process: dict[str, Any], seccomp: Seccomp | None, fds: Collection[int]
) -> ExecRequest:
    """The agent's request for a process, with the streams that are passed."""
    return ExecRequest(
        process=quickjson.dumps(process).encode(),
        seccomp=seccomp,
        stdin=0 in fds,
        stdout=1 in fds,
        stderr=2 in fds and not process.get("terminal"),
    )
