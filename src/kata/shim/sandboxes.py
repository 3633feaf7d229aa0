"""``containerd.runtime.sandbox.v1.Sandbox``: the machine itself, apart from its containers."""

from __future__ import annotations

import os
import time

from kata.errors import InvalidInput, NotFound, WrongState
from kata.runtime.store import LOST_EXIT_CODE
from kata.wire import containerd_sandbox as api
from kata.wire import quickjson
from kata.wire.calls import Empty
from kata.wire.containerd_types import SANDBOX_SERVICE, Platform, timestamp

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from kata.shim.server import Method
    from kata.shim.supervisor import ShimSupervisor
    from kata.wire.protobuf import Message

READY, NOT_READY = "SANDBOX_READY", "SANDBOX_NOTREADY"
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


class SandboxService:
    """The sandbox of one shim."""

    def __init__(self, core: ShimSupervisor) -> None:
        self._core = core
        self._stopped = False

    def services(self) -> dict[str, dict[str, Method]]:
        """The methods, for a server."""
        handlers: dict[str, Callable[[Any], Message]] = {
            "CreateSandbox": self._create, "StartSandbox": self._start,
            "Platform": self._platform, "StopSandbox": self._stop, "WaitSandbox": self._wait,
            "SandboxStatus": self._status, "PingSandbox": self._ping,
            "ShutdownSandbox": self._shutdown,
        }  # fmt: skip
        return {
            SANDBOX_SERVICE: {
                name: (api.METHODS[name][0], handler) for name, handler in handlers.items()
            }
        }

    def _check(self, request: Any) -> None:
        if request.sandbox_id and request.sandbox_id != self._core.seat.order.id:
            raise NotFound(f'no sandbox "{request.sandbox_id}" here')

    def _create(self, request: api.CreateSandboxRequest) -> Empty:
        self._check(request)
        self._made()
        return Empty()

    def _made(self) -> None:
        """Wait until the machine runs. Raises what kept it from that."""
        life = self._core.first
        life.created.wait()
        if life.failure is not None:
            raise life.failure

    def _start(self, request: api.SandboxRequest) -> api.StartSandboxResponse:
        self._check(request)
        self._made()
        created = timestamp(self._core.first.state.created_ns)
        return api.StartSandboxResponse(pid=os.getpid(), created_at=created)

    def _platform(self, request: api.SandboxRequest) -> api.PlatformResponse:
        self._check(request)
        machine = os.uname().machine
        found = Platform(os="linux", architecture=_ARCHITECTURES.get(machine, machine))
        return api.PlatformResponse(platform=found)

    def _stop(self, request: api.StopSandboxRequest) -> Empty:
        self._check(request)
        self._stopped = True
        self._core.stop(request.timeout_secs or 10)
        return Empty()

    def _wait(self, request: api.SandboxRequest) -> api.WaitSandboxResponse:
        self._check(request)
        life = self._core.first
        life.finished.wait()
        ended = life.result.finished_ns or time.time_ns()
        code = 0 if self._stopped else life.result.exit_code or LOST_EXIT_CODE
        return api.WaitSandboxResponse(exit_status=code, exited_at=timestamp(ended))

    def _status(self, request: api.SandboxStatusRequest) -> api.SandboxStatusResponse:
        self._check(request)
        life = self._core.first
        ready = life.created.wait(0) and not life.exited.wait(0)
        info = {}
        if request.verbose and ready:
            info["kata"] = quickjson.dumps(self._core.sandbox.describe())
        return api.SandboxStatusResponse(
            sandbox_id=self._core.seat.order.id, pid=os.getpid() if ready else 0, info=info,
            state=READY if ready else NOT_READY, created_at=timestamp(life.state.created_ns),
            exited_at=timestamp(life.result.finished_ns),
        )  # fmt: skip

    def _ping(self, request: api.SandboxRequest) -> Empty:
        self._check(request)
        if self._core.first.exited.wait(0):
            raise WrongState("the virtual machine has ended")
        return Empty()

    def _shutdown(self, request: api.SandboxRequest) -> Empty:
        if not request.sandbox_id:
            raise InvalidInput("ShutdownSandbox: sandbox_id is empty")
        self._check(request)
        self._core.shut_down()
        return Empty()
