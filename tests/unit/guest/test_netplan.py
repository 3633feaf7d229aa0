"""What the agent changes of its network: against what was there, name conflicts, bad requests."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kata.errors import InvalidInput
from kata.guest import netplan
from kata.linux import rtnetlink as rt
from kata.wire import agent_api as api
from support import oracle

A, B = "02:00:00:00:00:01", "02:00:00:00:00:02"
CARDS = {A: 2, B: 3}
NAMES = {1: "lo", 2: "eth0", 3: "eth1"}


def interface(device=A, name="eth0", *addresses, **more):
    given = [api.NetworkAddress(address=a, prefix=24) for a in addresses]
    settings = {"mac": "0a:00:00:00:00:05", "mtu": 1500} | more
    return api.Interface(device=device, name=name, addresses=given, **settings)


def state(*interfaces, **more):
    request = api.UpdateNetworkRequest(interfaces=list(interfaces), **more)
    return netplan.wanted(request, CARDS)


def words(changes):
    return [what for *_, what in changes]


EMPTY = netplan.State()
DEFAULT = api.Route(gateway="10.1.0.1", interface="eth0")
ONE = state(interface(A, "eth0", "10.1.0.2"), routes=[DEFAULT])


def test_the_first_time_everything_is_set():
    """Card, address and route, in the order in which the kernel takes them; no renaming."""
    steps = netplan.steps(EMPTY, ONE, NAMES)
    assert steps.remove == ()
    assert words(steps.add) == [
        "bring up the link eth0", "add the address 10.1.0.2/24", "add the route to default/0",
    ]  # fmt: skip


def test_the_same_again_is_nothing():
    """A request that says what is so changes nothing."""
    assert netplan.steps(ONE, ONE, NAMES) == netplan.Steps()


def test_only_what_differs_is_changed():
    """An address more is one message, an address less another."""
    more = state(interface(A, "eth0", "10.1.0.2", "10.1.0.3"), routes=[DEFAULT])
    assert words(netplan.steps(ONE, more, NAMES).add) == ["add the address 10.1.0.3/24"]
    assert words(netplan.steps(more, ONE, NAMES).remove) == ["remove the address 10.1.0.3/24"]


def test_nothing_wanted_takes_all_away():
    """Route, address and the card's being up go, in this order."""
    assert words(netplan.steps(ONE, EMPTY, NAMES).remove) == [
        "remove the route to default/0", "remove the address 10.1.0.2/24", "change the link 2",
    ]  # fmt: skip


def test_names_may_be_swapped():
    """Two cards exchange their names by way of a third; what went by them is made again."""
    before = state(interface(A, "eth0", "10.1.0.2"), interface(B, "eth1", "10.2.0.2"))
    after = state(interface(A, "eth1", "10.1.0.2"), interface(B, "eth0", "10.2.0.2"))
    steps = netplan.steps(before, after, NAMES)
    assert words(steps.remove) == ["change the link 3", "change the link 2"]
    assert words(steps.add)[:4] == [
        "change the link kata3", "change the link kata2", "change the link eth1",
        "change the link eth0",
    ]  # fmt: skip
    assert "add the address 10.1.0.2/24" in words(steps.add)


def test_a_card_is_down_while_it_is_named():
    """Kernels before 6.2 rename only links that are down."""
    steps = netplan.steps(EMPTY, state(interface(A, "net0")), NAMES)
    assert words(steps.remove) == ["change the link 2"]
    assert words(steps.add) == ["change the link net0", "bring up the link net0"]


@given(st.data())
def test_renaming_never_meets_a_name_that_is_taken(data):
    """Whatever the names are and are to be, each step's name is free when it is taken."""
    indexes = list(range(2, 2 + data.draw(st.integers(1, 5))))
    names = st.sampled_from(["eth0", "eth1", "eth2", "net1", "ens3", "x"])
    now = dict(zip(indexes, data.draw(st.lists(names, unique=True, min_size=5)), strict=False))
    some = data.draw(st.lists(st.sampled_from(indexes), unique=True))
    wanted = dict(zip(some, data.draw(st.lists(names, unique=True, min_size=5)), strict=False))
    have = dict(now)
    for index, name in netplan.renames(wanted, now):
        assert name not in {n for i, n in have.items() if i != index}
        have[index] = name
    assert {i: have[i] for i in wanted} == wanted


@pytest.mark.parametrize(
    "request_",
    [
        {"interfaces": [interface("02:00:00:00:00:77")]},
        {"interfaces": [interface(A), interface(B)]},
        {"interfaces": [interface(name="")]},
        {"interfaces": [interface(name="a/b")]},
        {"interfaces": [interface(name="lo")]},
        {"interfaces": [interface(name="x" * 16)]},
        {"interfaces": [interface(A, "eth0", "nonsense")]},
        {"interfaces": [interface(mac="zz")]},
        {"interfaces": [interface(mtu=2**32 - 1)], "routes": [api.Route(interface="eth7")]},
        {"routes": [api.Route(prefix=1000)]},
        {"routes": [api.Route(hops=[api.Hop(interface="eth9")])]},
    ],
)  # fmt: skip
def test_a_bad_request_is_refused(request_):
    """What makes no sense ends in ``InvalidInput`` before anything is sent."""
    with pytest.raises(InvalidInput, match="network"):
        netplan.steps(EMPTY, state(*request_.pop("interfaces", []), **request_), NAMES)


@given(oracle.values(api.UpdateNetworkRequest), st.booleans())
def test_no_request_is_a_crash(request_, known):
    """Whatever is asked ends in steps or in ``InvalidInput``."""
    cards = CARDS | {i.device: 4 + n for n, i in enumerate(request_.interfaces) if known}
    try:
        after = netplan.wanted(request_, cards)
        netplan.steps(EMPTY, after, NAMES)
        netplan.steps(after, EMPTY, NAMES)
    except InvalidInput:
        pass


def test_addresses_of_version_6_are_not_checked_for_doubles():
    """They were checked where they come from; here the check would delay the first packet."""
    [address] = state(interface(A, "eth0", "fd00::2")).addresses
    assert address.flags == rt.PERMANENT | rt.NODAD
