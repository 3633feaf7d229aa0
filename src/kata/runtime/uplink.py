"""A sandbox's way out: its network, and what passes through its namespace on the host beside it.

The rule: without a network there is nothing to do; every step may be asked for all the same.
"""

from __future__ import annotations

import _thread

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from kata.errors import KataError
    from kata.hypervisors.interface import Vm
    from kata.network.namespace import Network
    from kata.runtime.forward import Forwarder
    from kata.runtime.names import Names
    from kata.runtime.rpc import Call, Client


class Uplink:
    """Links that become cards, queries of names, connections to localhost."""

    def __init__(self) -> None:
        self.network: Network | None = None
        self._namespace = -1
        self._names: Names | None = None
        self._forwarder: Forwarder | None = None
        self._changing = _thread.allocate_lock()
        self._closed = False

    def open(self, namespace: int, *, model: str, slots: int) -> None:
        """Make taps in a namespace (a descriptor), for the links that are there or will be.

        Raises as ``Network`` does.
        """
        from kata.network.namespace import Network

        self._namespace = namespace
        self.network = Network(namespace, model=model, slots=slots).__enter__()

    def move(self, namespace: int) -> None:
        """Be the way out of another namespace from now on, cards and all. Raises as ``open``.

        Without one (-1) the cards lead nowhere.
        """
        network = self.network
        if network is not None and namespace < 0:
            self.network = None
            network.leave()
        elif network is not None:
            self._namespace = namespace
            network.move(namespace)

    def tell(self, vm: Vm, client: Client) -> Call | None:
        """Tell the guest of its network, as it is now; its answer. Before the first container."""
        if self.network is None:
            return None
        from kata.runtime import networking

        self.network.refresh()
        return networking.tell(self.network, vm, client)

    def follow(
        self, vm: Vm, client: Client, failed: Callable[[KataError], None],
        told: Callable[[], None],
    ) -> None:  # fmt: skip
        """From now on, tell the guest of what changes; ``told`` is called after it."""
        if self.network is not None:
            from kata.runtime import networking

            networking.follow(self.network, vm, client, failed, told)

    def resolve_names(self, client: Client, failed: Callable[[KataError], None]) -> None:
        """From now on, the engine's resolver in the namespace answers the guest."""
        if self._names is None and self.network is not None:
            from kata.runtime.names import Names

            self._names = Names(client, self._namespace, failed)

    def forward_ports(self, client: Client) -> None:
        """From now on, localhost in the namespace is the guest's. Raises as ``Forwarder``."""
        with self._changing:
            if not self._closed and self.network is not None:
                from kata.runtime.forward import Forwarder

                self._forwarder = Forwarder(client, self._namespace)

    def close_services(self) -> None:
        """Nothing passes any more."""
        with self._changing:
            self._closed = True
            for served in (self._names, self._forwarder):
                if served is not None:
                    served.close()

    def close(self) -> None:
        """Take the taps away."""
        if self.network is not None:
            self.network.close()
