"""The agent's side of the network in a plain namespace: veth links stand for virtio cards."""

import os

import pytest

from kata.errors import GuestError, InvalidInput, WrongState
from kata.guest.network import Network
from kata.guest.process import Outcome
from kata.linux.namespaces import Inside
from kata.wire import agent_api as api
from support.netns import until

A, B, C = (f"02:00:00:00:00:0{n}" for n in (1, 2, 3))


class Loop:
    """A loop that is turned by hand."""

    def __init__(self):
        self.handlers = {}

    def watch(self, fd, _events, handler):
        self.handlers[fd] = handler

    def forget(self, fd):
        self.handlers.pop(fd, None)

    def turn(self):
        for handler in list(self.handlers.values()):
            handler(1)


class Guest:
    """The agent's network in a namespace."""

    def __init__(self, namespace):
        self.namespace = namespace
        self.loop = Loop()
        self.network = Network(self.loop)

    def look(self):
        with Inside(self.namespace.fd):
            return self.network.look()

    def update(self, *interfaces, **more):
        with Inside(self.namespace.fd):
            request = api.UpdateNetworkRequest(interfaces=list(interfaces), **more)
            return self.network.update(request)

    def settle(self):
        with Inside(self.namespace.fd):
            self.network.settle()

    def addresses(self, name):
        found = self.namespace.json(f"ip address show dev {name}")[0]["addr_info"]
        return sorted(f"{a['local']}/{a['prefixlen']}" for a in found)

    def routes(self):
        return {r["dst"]: r.get("gateway", r.get("dev")) for r in self.namespace.json("ip route")}


@pytest.fixture
def guest(pod, outside):
    """Two cards, and a link that is none of them."""
    for number, device in enumerate((A, B)):
        pod.wire(f"eth{number}", outside, f"far{number}")
        pod.ip(f"link set eth{number} address {device}")
        outside.ip(f"link set far{number} up")
    pod.ip("link add other type bridge")
    made = Guest(pod)
    yield made
    for sock in (made.network._sock, made.network._news):
        if sock is not None:
            sock.close()
    if made.network._spare is not None:
        os.close(made.network._spare[0])
        made.network._spare[1].close()


def card(device=A, name="eth0", *addresses, **more):
    given = [
        api.NetworkAddress(address=a.partition("/")[0], prefix=int(a.partition("/")[2]))
        for a in addresses
    ]
    settings = {"mac": "0a:00:00:00:00:05", "mtu": 1400} | more
    return api.Interface(device=device, name=name, addresses=given, **settings)


def test_only_cards_are_touched(guest, pod):
    """Cards are made ready, and known by the address they were made with; others stay down."""
    assert guest.look()
    links = pod.links()
    assert "UP" in links["eth0"]["flags"]
    assert "UP" not in links["other"]["flags"]
    assert guest.addresses("eth0") == []


def test_a_namespace_without_cards(outside):
    """Where there is no card, none is found and nothing is done."""
    alone = Guest(outside)
    outside.ip("link add other type bridge")
    assert not alone.look()
    alone.network._sock.close()


def test_all_settings_arrive(guest, pod):
    """Name, MAC, MTU, addresses of both families, routes and a neighbour."""
    guest.look()
    guest.update(
        card(A, "net0", "10.1.0.2/24", "fd00::2/64"),
        routes=[
            api.Route(destination="169.254.1.1", prefix=32, interface="net0", scope=253, kind=1),
            api.Route(gateway="169.254.1.1", interface="net0", kind=1),
            api.Route(ipv6=True, gateway="fd00::1", interface="net0", kind=1),
        ],
        neighbours=[api.Neighbour(interface="net0", address="10.1.0.9", mac="0a:00:00:00:00:09")],
    )
    link = pod.links()["net0"]
    assert (link["address"], link["mtu"]) == ("0a:00:00:00:00:05", 1400)
    assert guest.addresses("net0") == ["10.1.0.2/24", "fd00::2/64"]
    assert guest.routes()["default"] == "169.254.1.1"
    assert "fd00::1" in pod.ip("-6 route show default")
    assert "0a:00:00:00:00:09 PERMANENT" in pod.ip("neighbour show dev net0")
    assert "UP" in pod.links()["lo"]["flags"]


def test_names_are_swapped(guest, pod):
    """eth0 becomes eth1 and the other way round, addresses and routes included."""
    guest.look()
    route = api.Route(destination="10.9.0.0", prefix=16, gateway="10.1.0.1", interface="eth0")
    first = [card(A, "eth0", "10.1.0.2/24", "fd00::2/64"), card(B, "eth1", "10.2.0.2/24", mac=B)]
    guest.update(*first, routes=[route])
    swapped = [card(A, "eth1", "10.1.0.2/24", "fd00::2/64"), card(B, "eth0", "10.2.0.2/24", mac=B)]
    guest.update(*swapped, routes=[
        api.Route(destination="10.9.0.0", prefix=16, gateway="10.1.0.1", interface="eth1")
    ])  # fmt: skip
    assert guest.addresses("eth1") == ["10.1.0.2/24", "fd00::2/64"]
    assert guest.addresses("eth0") == ["10.2.0.2/24"]
    assert pod.json("ip route show 10.9.0.0/16")[0]["dev"] == "eth1"


def test_what_is_not_wanted_any_more_goes(guest, pod):
    """Addresses and routes that are not named again go; a card that is not is hidden."""
    guest.look()
    guest.update(
        card(A, "eth0", "10.1.0.2/24", "10.1.0.3/24"),
        routes=[api.Route(gateway="10.1.0.1", interface="eth0")],
    )
    guest.update(card(A, "eth0", "10.1.0.3/24"))
    assert guest.addresses("eth0") == ["10.1.0.3/24"]
    assert "default" not in guest.routes()
    guest.update()
    guest.settle()
    assert "eth0" not in pod.links()


def test_what_was_taken_away_meanwhile_is_no_error(guest, pod):
    """A container with the right to may have removed what is to be removed."""
    guest.look()
    default = api.Route(gateway="10.1.0.1", interface="eth0")
    guest.update(card(A, "eth0", "10.1.0.2/24"), routes=[default])
    pod.ip("address flush dev eth0")
    guest.update()


def test_a_card_that_is_still_to_come(guest, pod, outside):
    """The answer is given when the card is there, and everything is set then."""
    guest.look()
    outcome = guest.update(card(C, "eth2", "10.3.0.2/24"))
    assert isinstance(outcome, Outcome)
    guest.loop.turn()
    assert outcome.value is None
    pod.wire("new", outside, "far2", f"address {C}")

    def turned():
        with Inside(pod.fd):
            guest.loop.turn()
        return outcome.value

    assert isinstance(until(turned), api.Empty)
    assert guest.addresses("eth2") == ["10.3.0.2/24"]
    assert guest.loop.handlers == {}


def test_a_later_request_wins(guest):
    """One that waits for a card is answered with an error when the next one comes."""
    guest.look()
    waiting = guest.update(card(C, "eth2"))
    guest.update(card(A, "eth0"))
    assert isinstance(waiting.value, WrongState)


def test_what_the_kernel_refuses_is_named_and_can_be_tried_again(guest):
    """The error says which step failed; the next request is applied in full."""
    guest.look()
    with pytest.raises(GuestError, match=r"add the route to 10\.9\.0\.0/16"):
        guest.update(
            card(A, "eth0", "10.1.0.2/24"),
            routes=[api.Route(destination="10.9.0.0", prefix=16, gateway="10.77.0.1",
                              interface="eth0")],
        )  # fmt: skip
    guest.update(card(A, "eth0", "10.1.0.2/24"))
    assert guest.addresses("eth0") == ["10.1.0.2/24"]
    with pytest.raises(InvalidInput):
        guest.update(card(A, "eth0", "10.1.0.2/24"), routes=[api.Route(interface="eth5")])


def test_the_rehearsal_leaves_nothing(guest, pod):
    """Before a template is frozen the work is done once; cards are as they were."""
    guest.look()
    before = pod.json("ip address show"), pod.json("ip route show"), pod.ip("-6 route show")
    with Inside(pod.fd):
        guest.network.rehearse()
    for link in before[0]:
        link.pop("operstate", None)
    after = pod.json("ip address show"), pod.json("ip route show"), pod.ip("-6 route show")
    assert [(l["ifname"], l["address"], l["mtu"], l["addr_info"]) for l in after[0]] == [
        (l["ifname"], l["address"], l["mtu"], l["addr_info"]) for l in before[0]
    ]
    assert after[1:] == before[1:]
    assert "UP" in pod.links()["eth0"]["flags"]


def test_cards_without_a_link_are_out_of_sight(guest):
    """Containers see the links that the engine gave them; a card comes back with its link."""

    def seen():
        return {link["ifname"] for link in guest.namespace.json("ip link")} - {"other"}

    guest.look()
    guest.update(card(A, "eth0", "10.9.0.2/24"))
    guest.settle()
    assert seen() == {"lo", "eth0"}
    guest.update(card(A, "eth0", "10.9.0.2/24"), card(B, "eth1", "10.9.1.2/24"))
    guest.settle()
    assert seen() == {"lo", "eth0", "eth1"}
    assert guest.addresses("eth1") == ["10.9.1.2/24"]
    guest.update()
    guest.settle()
    assert seen() == {"lo"}
