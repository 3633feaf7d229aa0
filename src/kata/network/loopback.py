"""The loopback of a sandbox's network namespace on the host: who connects there means a container.

    loopback = Loopback(namespace)
    for listener in loopback.listeners: ...     # getsockname() of what is accepted: the port meant
    loopback.close()

The one rule: a port that somebody listens at in the namespace stays theirs.
"""

from __future__ import annotations

import _socket

from kata.errors import HostError
from kata.linux.namespaces import Inside
from kata.linux.steer import Steering

_KIND = _socket.SOCK_STREAM | _socket.SOCK_NONBLOCK | _socket.SOCK_CLOEXEC
_BACKLOG = 64


class Loopback:
    """Listeners for all ports of 127.0.0.1 and ::1 (if there is one) that are nobody else's.

    ``namespace`` is a descriptor, which stays the caller's. Raises ``HostError``.
    """

    def __init__(self, namespace: int) -> None:
        self.listeners: list[_socket.socket] = []
        self._steered: Steering | None = None
        try:
            with Inside(namespace):
                self._listen(_socket.AF_INET, "127.0.0.1")
                try:
                    self._listen(_socket.AF_INET6, "::1")
                except OSError:
                    pass  # no IPv6 in this namespace
                ports = {sock.family: sock.getsockname()[1] for sock in self.listeners}
                self._steered = Steering(ports)
        except OSError as error:
            self.close()
            raise HostError(
                "ports of the sandbox cannot be forwarded", why=str(error),
                hint="the kernel needs classifiers by BPF (cls_bpf), Linux 5.7",
            ) from None  # fmt: skip

    def _listen(self, family: int, address: str) -> None:
        sock = _socket.socket(family, _KIND)
        try:
            sock.bind((address, 0))
            sock.listen(_BACKLOG)
        except OSError:
            sock.close()
            raise
        self.listeners.append(sock)

    def close(self) -> None:
        """Steer nobody any more; any number of times."""
        steered, self._steered = self._steered, None
        if steered is not None:
            steered.close()
        while self.listeners:
            self.listeners.pop().close()
