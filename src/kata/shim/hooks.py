"""A container's hooks on the host, at the moments that containerd's calls give.

They run in the network namespace of the host, as ``createContainer`` alone does not; what fails
after the end of a container is told in the log and passed over, as runc has it.
"""

from __future__ import annotations

from kata.errors import HostError
from kata.oci.state import CREATED, RUNNING, STOPPED, State, document
from kata.runtime.hooks import run_all
from kata.runtime.lifetime import note
from kata.wire.quickjson import dumps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from kata.shim.processes import Task
    from kata.shim.seat import Seat

_CREATION = ("prestart", "createRuntime", "createContainer")


class Hooks:
    """The hooks of one container."""

    def __init__(self, seat: Seat, task: Task, spec: dict[str, Any]) -> None:
        self._seat = seat
        self._task = task
        self._hooks: dict[str, Any] = spec.get("hooks") or {}
        self._annotations = tuple((spec.get("annotations") or {}).items())

    def create(self) -> None:
        """Before the container is made in the guest. Raises ``HostError``."""
        for kind in _CREATION:
            self._run(kind, CREATED)

    def started(self) -> None:
        """After its process was started. Raises ``HostError``."""
        self._run("poststart", RUNNING)

    def deleted(self) -> None:
        """After it is gone."""
        for hook in self._hooks.get("poststop") or ():
            try:
                run_all("poststop", (hook,), self._state(STOPPED), network=self._seat.host_network)
            except HostError as error:
                note(str(error))

    def _run(self, kind: str, status: str) -> None:
        hooks = self._hooks.get(kind) or ()
        if hooks:
            seat = self._seat
            network = seat.network if kind == "createContainer" else seat.host_network
            run_all(kind, hooks, self._state(status), network=network)

    def _state(self, status: str) -> bytes:
        pid = 0 if status == STOPPED else self._task.init.pid
        about = State(
            id=self._task.id, status=status, bundle=self._task.bundle, pid=pid,
            annotations=self._annotations,
        )  # fmt: skip
        return dumps(document(about)).encode()
