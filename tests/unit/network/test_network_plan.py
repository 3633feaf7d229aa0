"""What becomes of a network namespace: endpoints, slots, and what the guest is told."""

import pytest

from kata.linux import rtnetlink as rt
from kata.network.plan import MOST_ENDPOINTS, Observed, plan, request
from kata.wire.record import replace

LO = rt.Link(1, "lo", mtu=65536, flags=rt.UP | rt.LOOPBACK, medium=772)
ETH0 = rt.Link(5, "eth0", "0a:00:00:00:00:05", 1450, rt.UP, "veth")
ETH1 = rt.Link(7, "eth1", "0a:00:00:00:00:07", 9000, rt.UP, "macvlan")
OURS = rt.Address(5, "10.1.0.2", 24, broadcast="10.1.0.255")
DEFAULT = rt.Route(2, gateway="10.1.0.1", index=5)


def links(*found, **more):
    return Observed(links=(LO, *found), **more)


def test_a_usual_pod():
    """One link with an address and a default route is one endpoint, told as it is."""
    found = plan(links(ETH0, addresses=(OURS,), routes=(DEFAULT,)), {})
    told = request(found)
    [card] = told.interfaces
    assert (card.device, card.name, card.mac) == ("02:00:00:00:00:01", "eth0", ETH0.mac)
    assert (card.mtu, card.noarp) == (1450, False)
    [address] = card.addresses
    assert (address.address, address.prefix, address.broadcast) == ("10.1.0.2", 24, "10.1.0.255")
    [route] = told.routes
    assert (route.gateway, route.interface, route.destination) == ("10.1.0.1", "eth0", "")


def test_an_empty_namespace_is_no_error():
    """A namespace that an engine fills later has no endpoint yet."""
    assert plan(links(), {}).endpoints == ()
    assert request(plan(links(), {})).encode() == b""


def test_loopback_and_fallback_devices_are_passed_over():
    """What the kernel makes unasked is no endpoint, and no error."""
    tunnel = rt.Link(2, "tunl0", mtu=1480, kind="ipip", medium=768)
    idle = replace(ETH1, flags=0)
    part = replace(ETH1, index=9, name="port", master=12)
    found = plan(links(tunnel, idle, part), {})
    assert found.endpoints == found.refused == ()


@pytest.mark.parametrize("kind", ["macvtap", "tun", "netkit", "wireguard"])
def test_what_no_card_can_stand_for_is_refused_by_name(kind):
    """A used link of another kind is named, with its kind."""
    found = plan(links(ETH0, replace(ETH1, kind=kind)), {})
    assert found.refused == (("eth1", kind),)
    assert len(found.endpoints) == 1


def test_a_tunnel_that_is_used_is_refused():
    """A link that carries no Ethernet frames cannot be a card, once it has an address."""
    tunnel = rt.Link(2, "tunl0", mtu=1480, kind="ipip", medium=768)
    found = plan(links(tunnel, addresses=(rt.Address(2, "10.9.0.1", 32),)), {})
    assert found.refused == (("tunl0", "ipip"),)


def test_slots_are_kept():
    """A link keeps its slot when others come and go; a free slot is used again."""
    first = plan(links(ETH0, ETH1), {})
    assert [(e.link.name, e.slot) for e in first.endpoints] == [("eth0", 0), ("eth1", 1)]
    second = plan(links(ETH1), {5: 0, 7: 1})
    assert [(e.link.name, e.slot) for e in second.endpoints] == [("eth1", 1)]
    late = replace(ETH0, index=3, name="eth2")
    third = plan(links(ETH1, late), {7: 1})
    assert {e.link.name: e.slot for e in third.endpoints} == {"eth2": 0, "eth1": 1}


def test_there_is_an_end_to_slots():
    """Links beyond what a machine takes are refused, the first are not."""
    many = [replace(ETH0, index=10 + n, name=f"e{n}") for n in range(MOST_ENDPOINTS + 1)]
    found = plan(links(*many), {})
    assert len(found.endpoints) == MOST_ENDPOINTS
    assert found.refused == ((f"e{MOST_ENDPOINTS}", "one too many"),)


def test_an_endpoint_may_lose_its_address():
    """A link that was one stays one while it is there."""
    bare = replace(ETH0, flags=0)
    assert plan(links(bare), {}).endpoints == ()
    assert len(plan(links(bare), {5: 0}).endpoints) == 1


def test_routes_of_the_kernel_are_the_guest_kernel_s():
    """Only what somebody set is told, those first that gateways are reached by."""
    gateway = rt.Route(2, "169.254.1.1", 32, index=5, scope=rt.SCOPE_LINK)
    default = replace(DEFAULT, gateway="169.254.1.1")
    routes = (
        default, gateway,
        rt.Route(2, "10.1.0.0", 24, index=5, protocol=rt.PROTOCOL_KERNEL),
        rt.Route(2, "10.8.0.0", 16, index=1),
        rt.Route(10, "ff00::", 8, index=5, kind=5),
        rt.Route(2, "10.66.0.0", 16, kind=6),
    )  # fmt: skip
    found = plan(links(ETH0, routes=routes), {})
    assert [r.destination for r in found.routes] == ["10.66.0.0", "169.254.1.1", ""] or [
        r.destination for r in found.routes
    ] == ["169.254.1.1", "10.66.0.0", ""]
    assert {r.interface for r in request(found).routes} == {"eth0", ""}


def test_multipath_is_told_hop_by_hop():
    """A route of several hops names each link; one that leaves by a foreign link is not told."""
    hops = (("10.1.0.1", 5, 1), ("10.2.0.1", 7, 2))
    route = rt.Route(2, "10.3.0.0", 16, hops=hops)
    [told] = request(plan(links(ETH0, ETH1, routes=(route,)), {})).routes
    assert [(h.gateway, h.interface, h.weight) for h in told.hops] == [
        ("10.1.0.1", "eth0", 1), ("10.2.0.1", "eth1", 2),
    ]  # fmt: skip
    assert plan(links(ETH0, routes=(route,)), {}).routes == ()


def test_only_permanent_neighbours_are_told():
    """What was learned is learned again by the guest."""
    known = rt.Neighbour(5, "10.1.0.9", "0a:00:00:00:00:09")
    learned = replace(known, address="10.1.0.8", state=2)
    found = plan(links(ETH0, neighbours=(known, learned)), {})
    assert [n.address for n in request(found).neighbours] == ["10.1.0.9"]


def test_an_address_that_somebody_else_has_is_not_told():
    """An address that failed its check is not brought into the guest unchecked."""
    failed = rt.Address(5, "fd00::2", 64, flags=rt.PERMANENT | rt.DADFAILED)
    [endpoint] = plan(links(ETH0, addresses=(OURS, failed)), {}).endpoints
    assert [a.address for a in endpoint.addresses] == ["10.1.0.2"]


@pytest.mark.parametrize(("mtu", "given"), [(65535, 65521), (0, 68), (9000, 9000)])
def test_mtus_are_those_that_a_tap_takes(mtu, given):
    """The MTU is the link's, as far as a tap can have it."""
    [endpoint] = plan(links(replace(ETH0, mtu=mtu)), {}).endpoints
    assert endpoint.mtu == given
