"""From what the host wants of the network to rtnetlink messages; pure.

The one rule: a plan is made against what was last applied, so that it holds only what changes.
"""

from __future__ import annotations

from _socket import AF_INET, AF_INET6
from struct import error as StructError  # noqa: N812

from kata.errors import InvalidInput
from kata.linux import netlink as nl
from kata.linux import rtnetlink as rt
from kata.wire.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from kata.wire import agent_api as api

    Change = tuple[int, int, bytes, str]

_LONGEST_NAME = 15
_MOST = 10_000


@record
class State:
    """What the kernel is to hold, by value: cards (index -> settings), and what goes by them."""

    cards: tuple[Card, ...] = ()
    addresses: tuple[rt.Address, ...] = ()
    routes: tuple[rt.Route, ...] = ()
    neighbours: tuple[rt.Neighbour, ...] = ()


@record
class Card:
    """The settings of one card."""

    index: int
    name: str
    mac: str
    mtu: int
    noarp: bool


@record
class Steps:
    """What to send, in this order; what is removed may be gone, what is added may be there."""

    remove: tuple[Change, ...] = ()
    add: tuple[Change, ...] = ()


def wanted(request: api.UpdateNetworkRequest, cards: Mapping[str, int]) -> State:
    """The state that a request asks for; ``cards``: device -> index. Raises ``InvalidInput``."""
    try:
        if len(request.routes) + len(request.neighbours) > _MOST:
            raise ValueError(f"more than {_MOST} routes and neighbours")
        _check_names([i.name for i in request.interfaces])
        index = {i.name: cards[i.device] for i in request.interfaces}
        return State(
            cards=tuple(
                Card(index[i.name], i.name, i.mac, i.mtu, i.noarp) for i in request.interfaces
            ),
            addresses=tuple(_address(index[i.name], a) for i in request.interfaces
                            for a in i.addresses),
            routes=tuple(_route(r, index) for r in request.routes),
            neighbours=tuple(
                rt.Neighbour(index[n.interface], n.address, n.mac) for n in request.neighbours
            ),
        )  # fmt: skip
    except KeyError as error:
        raise InvalidInput(f"the network: there is no interface {error}") from None
    except ValueError as error:
        raise InvalidInput("the network", why=str(error)) from None


def _check_names(names: list[str]) -> None:
    if len(set(names)) < len(names):
        raise ValueError("two interfaces of the same name")
    for name in names:
        if not 0 < len(name.encode()) <= _LONGEST_NAME or "/" in name or name in (".", "..", "lo"):
            raise ValueError(f'"{name[:32]}" cannot be the name of an interface')


def _address(index: int, a: api.NetworkAddress) -> rt.Address:
    flags = rt.PERMANENT | (rt.NODAD if rt.family_of(a.address) == AF_INET6 else 0)
    return rt.Address(index, a.address, a.prefix, a.scope, flags, a.broadcast, a.peer)


def _route(r: api.Route, index: Mapping[str, int]) -> rt.Route:
    return rt.Route(
        family=AF_INET6 if r.ipv6 else AF_INET, destination=r.destination, prefix=r.prefix,
        gateway=r.gateway, index=index[r.interface] if r.interface else 0, source=r.source,
        scope=r.scope, metric=r.metric, kind=r.kind or rt.UNICAST, flags=r.flags, mtu=r.mtu,
        hops=tuple((h.gateway, index[h.interface], h.weight) for h in r.hops),
    )  # fmt: skip


def steps(before: State, after: State, names: Mapping[int, str]) -> Steps:
    """From one state to the other; ``names`` are those the links (all of them) have now.

    Raises ``InvalidInput``.
    """
    try:
        return _steps(before, after, names)
    except (ValueError, StructError) as error:  # no address; a number that does not fit
        raise InvalidInput("the network", why=str(error)) from None


def _steps(before: State, after: State, names: Mapping[int, str]) -> Steps:
    known = {card.index: card for card in before.cards}
    there = {card.index for card in after.cards}
    gone = tuple(card.index for card in before.cards if card.index not in there)
    renamed = renames({c.index: c.name for c in after.cards}, names)
    # a link is down while it gets another name, and what went by it must be made again
    fresh = {index for index, _ in renamed} | (there - set(known))
    lost = [a for a in before.addresses if a not in after.addresses]
    # with an address the kernel may take others of its net away, and routes
    shaken = fresh | {address.index for address in lost}
    remove: list[Change] = []
    remove += [_delete(rt.DELROUTE, r) for r in before.routes if r not in after.routes]
    remove += [_delete(rt.DELNEIGH, n) for n in before.neighbours if n not in after.neighbours]
    remove += [_delete(rt.DELADDR, a) for a in lost]
    remove += [_set(index, flags=0, mask=rt.UP) for index in gone]
    downs = dict.fromkeys(index for index, _ in renamed)  # before Linux 6.2 it must be
    remove += [_set(index, flags=0, mask=rt.UP) for index in downs]
    add: list[Change] = [_set(index, name=name) for index, name in renamed]
    changed = [c for c in after.cards if c.index in fresh or known[c.index] != c]
    add += [_card(card) for card in changed]
    add += [_add(a) for a in after.addresses if a.index in shaken or a not in before.addresses]
    again = bool(shaken)
    add += [_add(r) for r in after.routes if again or r not in before.routes]
    add += [_add(n) for n in after.neighbours if again or n not in before.neighbours]
    return Steps(tuple(remove), tuple(add))


def renames(wanted: Mapping[int, str], now: Mapping[int, str]) -> list[tuple[int, str]]:
    """The order in which links get new names: who holds a name that is wanted leaves it first."""
    holders = {name: index for index, name in now.items()}
    found: list[tuple[int, str]] = []
    for index, name in wanted.items():
        holder = holders.get(name, index)
        if holder != index:
            found.append((holder, f"kata{holder}"))
    found += [(i, name) for i, name in wanted.items() if now.get(i) != name]
    return found


def _set(index: int, **changes: int | str) -> Change:
    body = rt.change_link(index, **changes)  # type: ignore[arg-type]
    return rt.SETLINK, 0, body, f"change the link {changes.get('name') or index}"


def _card(card: Card) -> Change:
    flags = rt.UP | (rt.NOARP if card.noarp else 0)
    body = rt.change_link(
        card.index, mac=card.mac, mtu=card.mtu, flags=flags, mask=rt.UP | rt.NOARP
    )
    return rt.SETLINK, 0, body, f"bring up the link {card.name}"


def _body(item: rt.Address | rt.Route | rt.Neighbour) -> tuple[int, bytes, str]:
    if isinstance(item, rt.Address):
        return rt.NEWADDR, rt.address_body(item), f"address {item.address}/{item.prefix}"
    if isinstance(item, rt.Route):
        what = f"route to {item.destination or 'default'}/{item.prefix}"
        return rt.NEWROUTE, rt.route_body(item), what
    return rt.NEWNEIGH, rt.neighbour_body(item), f"neighbour {item.address}"


def _add(item: rt.Address | rt.Route | rt.Neighbour) -> Change:
    kind, body, what = _body(item)
    return kind, nl.CREATE | nl.REPLACE, body, f"add the {what}"


def _delete(kind: int, item: rt.Address | rt.Route | rt.Neighbour) -> Change:
    _, body, what = _body(item)
    return kind, 0, body, f"remove the {what}"
