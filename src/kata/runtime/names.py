"""The engine's resolver for one guest: a stream of queries on one side, a thread that asks.

The rule: loaded and begun only for a sandbox whose containers are told to ask the engine.
"""

from __future__ import annotations

import os

from kata.errors import AgentError, KataError
from kata.network.resolver import ADDRESS, Resolver
from kata.runtime.rpc import Stream
from kata.wire.agent_api import METHODS, NameMessage, ResolveRequest
from kata.wire.ttrpc import Connection

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from kata.runtime.rpc import Client
    from kata.wire.ttrpc import Data

_METHOD = "Resolve"


class Names(Stream):
    """Passes on what the guest asks until ``close``; ``failed`` hears of a guest that cannot ask.

    ``namespace`` stays the caller's. Raises ``AgentError``.
    """

    def __init__(self, client: Client, namespace: int, failed: Callable[[KataError], None]) -> None:
        super().__init__(client, _METHOD, METHODS[_METHOD][1])
        self._failed = failed
        self._resolver = Resolver(os.dup(namespace), self._reply)
        address, port = ADDRESS
        try:
            client.open(self, ResolveRequest(address=address, port=port))
        except KataError:
            self._resolver.close()
            raise

    def arrived(self, data: Data) -> None:
        """A query; more than was agreed is a breach of the protocol."""
        if data.payload:
            self._resolver.ask(NameMessage.decode(data.payload))

    def finish(self, payload: bytes, error: KataError | None) -> None:
        """The guest asks nothing any more."""
        super().finish(payload, error)
        self._resolver.stop()
        if error is not None and not isinstance(error, AgentError):
            self._failed(error)

    def _reply(self, answer: NameMessage) -> None:
        self._client.send(Connection.data(self.number, answer.encode()))

    def close(self) -> None:
        """Ask nothing any more."""
        self._resolver.close()
