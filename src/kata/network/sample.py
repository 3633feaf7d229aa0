"""A network namespace as a bridge network of an engine has it, for a guest that rehearses.

The one rule: nothing of it is anybody's; it ends with its descriptors.
"""

from __future__ import annotations

import os

from kata.errors import HostError
from kata.linux import netlink as nl
from kata.linux import rtnetlink as rt
from kata.linux.namespaces import Inside, new_network
from kata.linux.netlink_socket import Rtnetlink

_LINK, _ADDRESS, _PREFIX, _GATEWAY = "eth0", "192.0.2.2", 24, "192.0.2.1"  # RFC 5737
_INET = 2


class SampleNetwork:
    """A context: the descriptor of a namespace with a veth link, an address and a default route."""

    def __init__(self) -> None:
        self._namespace = self._far = -1

    def __enter__(self) -> int:
        """Raises ``HostError``."""
        try:
            self._far, self._namespace = new_network(), new_network()
            with Inside(self._namespace), Rtnetlink() as sock:
                self._wire(sock)
        except OSError as error:
            self.__exit__()
            raise HostError(
                "cannot make a network to rehearse with", why=error.strerror or str(error)
            ) from None
        return self._namespace

    def __exit__(self, *_: object) -> None:
        """With the last descriptors all of it goes."""
        for fd in (self._namespace, self._far):
            if fd >= 0:
                os.close(fd)

    def _wire(self, sock: Rtnetlink) -> None:
        link = sock.new_link(_LINK, "veth")
        others = [o for o in sock.links() if o.kind == "veth" and o.index != link.index]
        for other in others:
            sock.set_link(other.index, up=True)
            sock.move_link(other.index, self._far)
        sock.set_link(link.index, up=True)
        address = rt.Address(link.index, _ADDRESS, _PREFIX)
        route = rt.Route(_INET, gateway=_GATEWAY, index=link.index)
        sock.apply([
            (rt.NEWADDR, nl.CREATE | nl.EXCLUSIVE, rt.address_body(address), "set an address"),
            (rt.NEWROUTE, nl.CREATE | nl.EXCLUSIVE, rt.route_body(route), "set a route"),
        ])  # fmt: skip
