"""From what a network namespace holds to endpoints, and to what the guest is told. Pure.

The one rule: the guest gets exactly what the namespace's links have; what the kernel makes by
itself (its own routes, its fallback devices) is left to the guest's kernel.
"""

from __future__ import annotations

from _socket import AF_INET6

from kata.linux import rtnetlink as rt
from kata.machine.description import mac_of
from kata.wire import agent_api as api
from kata.wire.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

# links whose frames a tap can take over; "" is hardware that was moved into the namespace
_SUPPORTED = frozenset(("", "veth", "macvlan", "ipvlan", "vlan", "dummy", "bridge", "bond", "team"))
MOST_ENDPOINTS = 8
_SMALLEST_MTU, _LARGEST_MTU = 68, 65521  # the second: a tap's own limit
_NOT_ROUTED = frozenset((0, rt.LOCAL, 3, 4, 5))  # unspecified, local, broadcast, anycast, multicast


@record
class Observed:
    """What a namespace holds; links that are our own taps left out."""

    links: tuple[rt.Link, ...] = ()
    addresses: tuple[rt.Address, ...] = ()
    routes: tuple[rt.Route, ...] = ()
    neighbours: tuple[rt.Neighbour, ...] = ()


@record
class Endpoint:
    """A link of the namespace and the card in the guest that stands for it."""

    slot: int
    link: rt.Link
    addresses: tuple[rt.Address, ...]

    @property
    def mtu(self) -> int:
        """The MTU of link, tap and card."""
        return max(_SMALLEST_MTU, min(self.link.mtu, _LARGEST_MTU))


@record
class Plan:
    """The endpoints, what goes between them, and the links that cannot be one: (name, kind)."""

    endpoints: tuple[Endpoint, ...] = ()
    routes: tuple[rt.Route, ...] = ()
    neighbours: tuple[rt.Neighbour, ...] = ()
    refused: tuple[tuple[str, str], ...] = ()


def plan(observed: Observed, slots: Mapping[int, int]) -> Plan:
    """What becomes of a namespace; ``slots``: link -> slot of the endpoints there are already."""
    configured = {address.index for address in observed.addresses}
    wanted: list[rt.Link] = []
    refused = []
    for link in sorted(observed.links, key=lambda link: link.index):
        if not _is_used(link, configured) and link.index not in slots:
            continue
        if link.kind in _SUPPORTED and link.medium == rt.ETHERNET:
            wanted.append(link)
        else:
            refused.append((link.name, link.kind or f"medium {link.medium}"))
    given = _slots(wanted, slots)
    refused += [(link.name, "one too many") for link in wanted if link.index not in given]
    endpoints = tuple(
        Endpoint(given[link.index], link, tuple(_addresses(observed, link)))
        for link in wanted if link.index in given
    )  # fmt: skip
    return Plan(
        endpoints, tuple(_routes(observed.routes, given)),
        tuple(n for n in observed.neighbours if _is_permanent(n) and n.index in given),
        tuple(refused),
    )  # fmt: skip


def _is_used(link: rt.Link, configured: set[int]) -> bool:
    """Neither loopback, nor part of a bridge or bond, nor a fallback device (``tunl0``, …)."""
    if link.flags & rt.LOOPBACK or link.master:
        return False
    return link.up or link.index in configured


def _slots(links: list[rt.Link], slots: Mapping[int, int]) -> dict[int, int]:
    """A slot for each link: the one it has, else the first that is free; none if all are taken."""
    given = {link.index: slots[link.index] for link in links if link.index in slots}
    free = [slot for slot in range(MOST_ENDPOINTS) if slot not in given.values()]
    for link in links:
        if link.index not in given and free:
            given[link.index] = free.pop(0)
    return given


def _addresses(observed: Observed, link: rt.Link) -> Iterable[rt.Address]:
    for address in observed.addresses:
        if address.index == link.index and not address.flags & rt.DADFAILED:
            yield address


def _routes(routes: Iterable[rt.Route], given: Mapping[int, int]) -> list[rt.Route]:
    """The routes that somebody set, those first that others' gateways are reached by."""
    found = [r for r in routes if _is_set(r) and _goes_by(r, given)]
    return sorted(found, key=lambda r: (bool(r.gateway or r.hops), -r.prefix, r.metric))


def _is_set(route: rt.Route) -> bool:
    return route.protocol != rt.PROTOCOL_KERNEL and route.kind not in _NOT_ROUTED


def _goes_by(route: rt.Route, given: Mapping[int, int]) -> bool:
    if route.kind != rt.UNICAST:
        return True  # blackhole, unreachable, prohibit, throw: by no link
    if route.hops:
        return all(index in given for _, index, _ in route.hops)
    return route.index in given


def _is_permanent(neighbour: rt.Neighbour) -> bool:
    permanent = bool(neighbour.state & rt.NEIGHBOUR_PERMANENT)
    return permanent and bool(neighbour.address) and bool(neighbour.mac)


def request(plan: Plan) -> api.UpdateNetworkRequest:
    """What the agent is told."""
    names = {endpoint.link.index: endpoint.link.name for endpoint in plan.endpoints}
    return api.UpdateNetworkRequest(
        interfaces=[_interface(endpoint) for endpoint in plan.endpoints],
        routes=[_route(route, names) for route in plan.routes],
        neighbours=[
            api.Neighbour(interface=names[n.index], address=n.address, mac=n.mac)
            for n in plan.neighbours
        ],
    )


def _interface(endpoint: Endpoint) -> api.Interface:
    link = endpoint.link
    return api.Interface(
        device=mac_of(endpoint.slot), name=link.name, mac=link.mac, mtu=endpoint.mtu,
        noarp=bool(link.flags & rt.NOARP),
        addresses=[
            api.NetworkAddress(
                address=a.address, prefix=a.prefix, scope=a.scope, broadcast=a.broadcast,
                peer=a.peer,
            )
            for a in endpoint.addresses
        ],
    )  # fmt: skip


def _route(route: rt.Route, names: Mapping[int, str]) -> api.Route:
    by_link = route.kind == rt.UNICAST
    return api.Route(
        ipv6=route.family == AF_INET6, destination=route.destination, prefix=route.prefix,
        gateway=route.gateway, interface=names.get(route.index, "") if by_link else "",
        source=route.source, scope=route.scope, metric=route.metric, kind=route.kind,
        flags=route.flags & rt.ONLINK, mtu=route.mtu,
        hops=[api.Hop(gateway=g, interface=names[i], weight=w) for g, i, w in route.hops],
    )  # fmt: skip
