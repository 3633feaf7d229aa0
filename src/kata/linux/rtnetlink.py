"""Links, addresses, routes and neighbours, as values and as rtnetlink messages.

The one rule: pure. A body is what follows a netlink header; addresses are text, "" for none.
Sources: rtnetlink(7), linux/{rtnetlink,if_link,if_addr,neighbour}.h.
"""

from __future__ import annotations

from _socket import AF_INET, AF_INET6, AF_UNSPEC, inet_ntop, inet_pton
from _struct import Struct

from kata.linux import netlink as nl
from kata.wire.record import record

NEWLINK, DELLINK, GETLINK, SETLINK = 16, 17, 18, 19
NEWADDR, DELADDR, GETADDR = 20, 21, 22
NEWROUTE, DELROUTE, GETROUTE = 24, 25, 26
NEWNEIGH, DELNEIGH, GETNEIGH = 28, 29, 30

UP, LOOPBACK, POINT_TO_POINT, NOARP, MULTICAST = 0x1, 0x8, 0x10, 0x80, 0x1000  # of links
ETHERNET = 1  # ARPHRD_ETHER
TABLE_MAIN, TABLE_LOCAL = 254, 255
PROTOCOL_KERNEL, PROTOCOL_BOOT, PROTOCOL_STATIC = 2, 3, 4
UNICAST, LOCAL = 1, 2  # types of routes
SCOPE_UNIVERSE, SCOPE_LINK, SCOPE_HOST, SCOPE_NOWHERE = 0, 253, 254, 255
ONLINK, CLONED = 4, 0x200  # flags of routes
NODAD, PERMANENT = 0x02, 0x80  # flags of addresses
TENTATIVE, DADFAILED, MANAGED_TEMPORARY = 0x40, 0x08, 0x01
NEIGHBOUR_PERMANENT = 0x80
_FOREVER = 0xFFFFFFFF
_ADDR_GEN_MODE, _GEN_NONE = 8, 1  # IFLA_INET6_ADDR_GEN_MODE: no addresses of the kernel's own

_LINK = Struct("<BxHiII")  # ifinfomsg: family, type, index, flags, change
_ADDRESS = Struct("<BBBBI")  # ifaddrmsg: family, prefix length, flags, scope, index
_ROUTE = Struct("<BBBBBBBBI")  # rtmsg: family, dst, src, tos, table, protocol, scope, type, flags
_NEIGHBOUR = Struct("<BxxxiHBB")  # ndmsg: family, index, state, flags, type
_HOP = Struct("<HBBi")  # rtnexthop: size, flags, hops, index


@record
class Link:
    """A network link; ``kind`` as iproute2 names it ("" for hardware), ``medium`` ARPHRD_*."""

    index: int
    name: str = ""
    mac: str = ""
    mtu: int = 0
    flags: int = 0
    kind: str = ""
    medium: int = ETHERNET
    parent: int = 0
    master: int = 0
    permanent_mac: str = ""

    @property
    def up(self) -> bool:
        """Whether it was brought up."""
        return bool(self.flags & UP)


@record
class Address:
    """An address of a link; ``address`` is its own, ``peer`` the other end's if it has one."""

    index: int
    address: str
    prefix: int
    scope: int = SCOPE_UNIVERSE
    flags: int = PERMANENT
    broadcast: str = ""
    peer: str = ""


@record
class Route:
    """A route; ``destination`` "" is the default, ``family`` tells which.

    ``hops`` are those of a multipath route: (gateway, link, weight).
    """

    family: int
    destination: str = ""
    prefix: int = 0
    gateway: str = ""
    index: int = 0
    source: str = ""
    scope: int = SCOPE_UNIVERSE
    metric: int = 0
    table: int = TABLE_MAIN
    protocol: int = PROTOCOL_BOOT
    kind: int = UNICAST
    flags: int = 0
    mtu: int = 0
    hops: tuple[tuple[str, int, int], ...] = ()


@record
class Neighbour:
    """What is known of the link-layer address of another."""

    index: int
    address: str
    mac: str
    state: int = NEIGHBOUR_PERMANENT
    flags: int = 0


def family_of(address: str) -> int:
    """The family of an address."""
    return AF_INET6 if ":" in address else AF_INET


def pack_ip(address: str) -> bytes:
    """An address's bytes. Raises ``ValueError``."""
    try:
        return inet_pton(family_of(address), address)
    except OSError:
        raise ValueError(f'not an IP address: "{address}"') from None


def ip_of(value: bytes | None) -> str:
    """An address in words; "" for none. Raises ``ValueError``."""
    if not value:
        return ""
    if len(value) not in (4, 16):
        raise ValueError(f"an IP address of {len(value)} bytes")
    return inet_ntop(AF_INET if len(value) == 4 else AF_INET6, value)


def pack_mac(mac: str) -> bytes:
    """A link-layer address's bytes. Raises ``ValueError``."""
    return bytes.fromhex(mac.replace(":", ""))


def mac_of(value: bytes | None) -> str:
    """A link-layer address in words."""
    return (value or b"").hex(":")


# links


def parse_link(body: bytes) -> Link:
    """The link in a NEWLINK or DELLINK. Raises ``ValueError``."""
    _, medium, index, flags, _ = _head(_LINK, body)
    found = nl.attributes(body, _LINK.size)
    info = nl.attributes(found.get(18, b""))  # IFLA_LINKINFO: IFLA_INFO_KIND
    return Link(
        index=index, name=nl.text_of(found.get(3)), mac=mac_of(found.get(1)),
        mtu=nl.number_of(found.get(4)), flags=flags, kind=nl.text_of(info.get(1)), medium=medium,
        parent=nl.number_of(found.get(5)), master=nl.number_of(found.get(10)),
        permanent_mac=mac_of(found.get(54)),
    )  # fmt: skip


def link_body(index: int = 0, name: str = "") -> bytes:
    """Names a link, by index or name: for GETLINK and DELLINK."""
    return _LINK.pack(AF_UNSPEC, 0, index, 0, 0) + (nl.text(3, name) if name else b"")


def change_link(
    index: int, *, name: str = "", mac: str = "", mtu: int = 0, flags: int = 0, mask: int = 0
) -> bytes:
    """For SETLINK; of the flags those in ``mask`` change. The kernel does it in this order."""
    body = _LINK.pack(AF_UNSPEC, 0, index, flags, mask)
    body += nl.attribute(1, pack_mac(mac)) if mac else b""
    body += nl.number(4, mtu) if mtu else b""
    return body + (nl.text(3, name) if name else b"")


def move_link(index: int, namespace: int) -> bytes:
    """For SETLINK: into the network namespace that a descriptor stands for."""
    return link_body(index) + nl.number(28, namespace)  # IFLA_NET_NS_FD


def no_own_addresses(index: int) -> bytes:
    """For SETLINK: no IPv6 addresses but those that are given (and no search for routers)."""
    mode = nl.attribute(_ADDR_GEN_MODE, bytes((_GEN_NONE,)))
    return _LINK.pack(AF_UNSPEC, 0, index, 0, 0) + nl.nest(26, nl.nest(AF_INET6, mode))


def new_link(name: str, kind: str, *, parent: int = 0, data: bytes = b"") -> bytes:
    """For NEWLINK; ``data`` are the kind's own attributes."""
    info = nl.text(1, kind) + (nl.nest(2, data) if data else b"")
    link = nl.number(5, parent) if parent else b""
    return _LINK.pack(AF_UNSPEC, 0, 0, 0, 0) + nl.text(3, name) + link + nl.nest(18, info)


# addresses


def parse_address(body: bytes) -> Address:
    """The address in a NEWADDR or DELADDR. Raises ``ValueError``."""
    family, prefix, flags, scope, index = _head(_ADDRESS, body)
    found = nl.attributes(body, _ADDRESS.size)
    remote, local = ip_of(found.get(1)), ip_of(found.get(2))
    own = local or remote
    if not own or family_of(own) != family:
        raise ValueError("an address message without an address")
    flags = nl.number_of(found.get(8)) or flags  # IFA_FLAGS: all 32 bits
    peer = remote if remote != own else ""
    return Address(index, own, prefix, scope, flags, ip_of(found.get(4)), peer)


def address_body(address: Address) -> bytes:
    """For NEWADDR and DELADDR."""
    own, flags = pack_ip(address.address), address.flags
    body = _ADDRESS.pack(
        family_of(address.address), address.prefix, flags & 0xFF, address.scope, address.index
    )
    body += nl.attribute(2, own)
    body += nl.attribute(1, pack_ip(address.peer) if address.peer else own)
    body += nl.attribute(4, pack_ip(address.broadcast)) if address.broadcast else b""
    return body + nl.number(8, flags)


# routes


def parse_route(body: bytes) -> Route:
    """The route in a NEWROUTE or DELROUTE. Raises ``ValueError``."""
    family, prefix, _, _, table, protocol, scope, kind, flags = _head(_ROUTE, body)
    found = nl.attributes(body, _ROUTE.size)
    metrics = nl.attributes(found.get(8, b""))  # RTA_METRICS: RTAX_MTU
    return Route(
        family=family, destination=ip_of(found.get(1)), prefix=prefix,
        gateway=_gateway(found), index=nl.number_of(found.get(4)), source=ip_of(found.get(7)),
        scope=scope, metric=nl.number_of(found.get(6)),
        table=nl.number_of(found.get(15)) or table, protocol=protocol, kind=kind, flags=flags,
        mtu=nl.number_of(metrics.get(2)), hops=tuple(_hops(found.get(9, b""))),
    )  # fmt: skip


def _gateway(found: dict[int, bytes]) -> str:
    via = found.get(18, b"")  # RTA_VIA: a gateway of the other family
    return ip_of(found.get(5)) or ip_of(via[2:])


def _hops(data: bytes) -> list[tuple[str, int, int]]:
    hops, at = [], 0
    while at + _HOP.size <= len(data):
        size, _, weight, index = _HOP.unpack_from(data, at)
        if size < _HOP.size or at + size > len(data):
            raise ValueError("a hop is longer than its route")
        found = nl.attributes(data[at + _HOP.size : at + size])
        hops.append((_gateway(found), index, weight + 1))
        at += size + -size % 4
    return hops


def route_body(route: Route) -> bytes:
    """For NEWROUTE and DELROUTE."""
    table = route.table if route.table < 256 else 0
    body = _ROUTE.pack(
        route.family, route.prefix, 0, 0, table, route.protocol, route.scope, route.kind,
        route.flags,
    )  # fmt: skip
    if route.destination:
        body += nl.attribute(1, pack_ip(route.destination))
    body += _gateway_body(route.family, route.gateway)
    body += nl.number(4, route.index) if route.index else b""
    body += nl.attribute(7, pack_ip(route.source)) if route.source else b""
    body += nl.number(6, route.metric) if route.metric else b""
    body += nl.number(15, route.table)
    body += nl.nest(8, nl.number(2, route.mtu)) if route.mtu else b""
    hops = b"".join(_hop_body(route.family, hop) for hop in route.hops)
    return body + (nl.attribute(9, hops) if hops else b"")


def _gateway_body(family: int, gateway: str) -> bytes:
    if not gateway:
        return b""
    if family_of(gateway) == family:
        return nl.attribute(5, pack_ip(gateway))
    return nl.attribute(18, family_of(gateway).to_bytes(2, "little") + pack_ip(gateway))


def _hop_body(family: int, hop: tuple[str, int, int]) -> bytes:
    gateway, index, weight = hop
    via = _gateway_body(family, gateway)
    return _HOP.pack(_HOP.size + len(via), 0, max(weight, 1) - 1, index) + via


# neighbours


def parse_neighbour(body: bytes) -> Neighbour:
    """The neighbour in a NEWNEIGH or DELNEIGH. Raises ``ValueError``."""
    _, index, state, flags, _ = _head(_NEIGHBOUR, body)
    found = nl.attributes(body, _NEIGHBOUR.size)
    return Neighbour(index, ip_of(found.get(1)), mac_of(found.get(2)), state, flags)


def neighbour_body(neighbour: Neighbour) -> bytes:
    """For NEWNEIGH and DELNEIGH."""
    family = family_of(neighbour.address)
    body = _NEIGHBOUR.pack(family, neighbour.index, neighbour.state, neighbour.flags, UNICAST)
    body += nl.attribute(1, pack_ip(neighbour.address))
    return body + (nl.attribute(2, pack_mac(neighbour.mac)) if neighbour.mac else b"")


def _head(layout: Struct, body: bytes) -> tuple[int, ...]:
    if len(body) < layout.size:
        raise ValueError("an rtnetlink message is too short")
    return layout.unpack_from(body)
