"""Taps that lead nowhere, for the machine of which a template is made.

The one rule: a card must have a tap when its guest first sees it: what the guest's driver may leave
to the host (checksums, segments) is agreed then, and every copy inherits it.
"""

from __future__ import annotations

import os

from kata.network.namespace import Network, new_namespace


class IdleTaps:
    """A context: (slot, tap, vhost-net) for each slot, in a namespace that nobody else has."""

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self._network: Network | None = None

    def __enter__(self) -> tuple[tuple[int, int, int], ...]:
        """Raises ``HostError``."""
        if not self._slots:
            return ()
        namespace = new_namespace()
        try:
            self._network = Network(namespace, slots=self._slots).__enter__()
        finally:
            os.close(namespace)
        return self._network.fds

    def __exit__(self, *_: object) -> None:
        """The monitor has its own descriptors; the taps last as long as those."""
        if self._network is not None:
            self._network.leave()
