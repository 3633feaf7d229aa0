"""What a ready sandbox becomes for ``kata-runtime`` and for ``kata run``.

containerd's shim has ``kata.shim.adoption``. The command has made the container's state and its
connections, and gives them away.
"""

from __future__ import annotations

from _socket import socket

from kata.runtime.bundle_workload import BundleWorkload
from kata.runtime.pod import PodSupervisor
from kata.runtime.ready import Role
from kata.runtime.run_order import KIND as RUN
from kata.runtime.run_order import parse
from kata.runtime.run_workload import RunWorkload
from kata.runtime.store import Store
from kata.runtime.supervisor import RunSupervisor
from kata.wire import quickjson

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from kata.config.settings import Config

KIND = "engine"
__all__ = ["KIND", "RUN", "adopt", "adopt_run"]


def adopt(order: dict[str, Any], fds: list[int], config: Config) -> Role:
    """``store`` and ``id`` say where the container is; two connections, its lock, its network."""
    *connections, _lock, network = fds  # the lock is held by being open
    store = Store(order["store"])
    state = store.load(order["id"])
    spec = quickjson.loads(store.read_spec(state.id))
    first = BundleWorkload(state, spec, config.runtime.data_root, network)
    first.deferred = True
    channels = [socket(fileno=fd) for fd in connections]
    log = f"{store.directory(state.id)}/supervisor.log"
    return Role(first, store, state, PodSupervisor, channels, (), log, order["title"])


def adopt_run(order: dict[str, Any], fds: list[int], config: Config) -> Role:
    """A connection, the container's lock, and its streams, which ``streams`` numbers."""
    channel, _lock, *given = fds  # the lock is held by being open
    store = Store(order["store"])
    state = store.load(order["id"])
    first = RunWorkload(parse(order["request"]), config.runtime.data_root)
    first.deferred = True
    return Role(
        first, store, state, RunSupervisor, [socket(fileno=channel)],
        tuple(zip(order["streams"], given, strict=True)),
        f"{store.directory(state.id)}/supervisor.log", order["title"],
    )  # fmt: skip
