"""Our rtnetlink and pyroute2's in the same namespace: each sees what the other did."""

import pytest
from pyroute2 import IPRoute

from kata.linux import rtnetlink as rt
from kata.linux.namespaces import Inside
from kata.linux.netlink_socket import GROUPS, NetlinkError, Rtnetlink
from support.netns import until


@pytest.fixture
def both(pod):
    """Our socket and theirs, in a namespace with a pair of links."""
    with Inside(pod.fd):
        ours, theirs = Rtnetlink(), IPRoute()
    theirs.link("add", ifname="eth0", kind="veth", peer="eth9")
    yield ours, theirs
    theirs.close()
    ours.close()


def change(kind, body):
    return kind, 0x500, body, "try"  # create or replace


def test_links_are_seen_as_they_are(both):
    """Index, name, MAC, MTU, flags and kind are those that pyroute2 reads."""
    ours, theirs = both
    seen = {(l.index, l.name, l.mac, l.mtu, l.flags & 0x1, l.kind) for l in ours.links()}
    assert seen == {
        (
            m["index"], m.get_attr("IFLA_IFNAME"), m.get_attr("IFLA_ADDRESS"),
            m.get_attr("IFLA_MTU"), m["flags"] & 0x1,
            m.get_nested("IFLA_LINKINFO", "IFLA_INFO_KIND") or "",
        )
        for m in theirs.get_links()
    }  # fmt: skip


def test_a_link_is_changed(both):
    """Name, MAC, MTU and state, in one request; made and deleted."""
    ours, theirs = both
    index = ours.link(name="eth0").index
    ours.set_link(index, name="net7", mac="0a:00:00:00:00:07", mtu=1350, up=True)
    [found] = theirs.get_links(index)
    assert found.get_attr("IFLA_IFNAME") == "net7"
    assert found.get_attr("IFLA_ADDRESS") == "0a:00:00:00:00:07"
    assert found.get_attr("IFLA_MTU") == 1350
    assert found["flags"] & 1
    ours.set_link(index, up=False)
    assert not ours.link(index).up
    made = ours.new_link("d0", "bridge")
    assert theirs.link_lookup(ifname="d0") == [made.index]
    for _ in range(2):
        ours.delete_link(made.index)
    assert theirs.link_lookup(ifname="d0") == []


@pytest.mark.parametrize(
    "address",
    [
        rt.Address(0, "10.1.0.2", 24, broadcast="10.1.0.255"),
        rt.Address(0, "10.1.0.2", 32, scope=rt.SCOPE_LINK),
        rt.Address(0, "10.1.0.2", 32, peer="10.1.0.1"),
        rt.Address(0, "fd00::2", 64, flags=rt.PERMANENT | rt.NODAD),
        rt.Address(0, "fe80::1:2", 64, scope=rt.SCOPE_LINK, flags=rt.PERMANENT | rt.NODAD),
    ],
)
def test_addresses_come_and_go(both, address):
    """An address is there as given, in our eyes and in theirs; then gone."""
    from kata.wire.record import replace

    ours, theirs = both
    index = ours.link(name="eth0").index
    ours.set_link(index, up=True)
    address = replace(address, index=index)
    ours.apply([change(rt.NEWADDR, rt.address_body(address))])
    assert address in ours.addresses()
    seen = [m.get_attr("IFA_LOCAL") or m.get_attr("IFA_ADDRESS") for m in theirs.get_addr()]
    assert address.address in seen
    ours.apply([(rt.DELADDR, 0, rt.address_body(address), "remove")])
    assert address.address not in [a.address for a in ours.addresses()]


def test_routes_of_all_sorts(both):
    """On-link, by gateway, with a source and a metric, multipath, unreachable, of both families."""
    ours, theirs = both
    index = ours.link(name="eth0").index
    ours.set_link(index, up=True)
    ours.set_link(ours.link(name="eth9").index, up=True)
    for body in (
        rt.address_body(rt.Address(index, "10.1.0.2", 24)),
        rt.address_body(rt.Address(index, "fd00::2", 64, flags=rt.PERMANENT | rt.NODAD)),
    ):
        ours.apply([change(rt.NEWADDR, body)])
    routes = [
        rt.Route(2, "169.254.1.1", 32, index=index, scope=rt.SCOPE_LINK),
        rt.Route(2, gateway="10.1.0.1", index=index, mtu=1300),
        rt.Route(2, "10.5.0.0", 16, "10.99.0.1", index, flags=rt.ONLINK),
        rt.Route(2, "10.6.0.0", 16, index=index, source="10.1.0.2", metric=50,
                 scope=rt.SCOPE_LINK),
        rt.Route(2, "10.7.0.0", 16, kind=7),
        rt.Route(2, "10.8.0.0", 16, hops=(("10.1.0.3", index, 1), ("10.1.0.4", index, 3))),
        rt.Route(10, gateway="fd00::1", index=index, metric=1024),
        rt.Route(10, "fd01::", 48, index=index, metric=7),
    ]  # fmt: skip
    ours.apply([change(rt.NEWROUTE, rt.route_body(r)) for r in routes])
    found = ours.routes()
    assert [r for r in routes if r not in found] == []
    written = {m.get_attr("RTA_DST") for m in theirs.get_routes(table=254)}
    assert {r.destination for r in routes if r.destination} <= written
    ours.apply([(rt.DELROUTE, 0, rt.route_body(r), "remove") for r in routes])
    assert [r for r in ours.routes() if r in routes] == []


def test_neighbours(both):
    """A permanent neighbour is there for both."""
    ours, theirs = both
    index = ours.link(name="eth0").index
    ours.set_link(index, up=True)
    known = rt.Neighbour(index, "10.1.0.9", "0a:00:00:00:00:09")
    ours.apply([change(rt.NEWNEIGH, rt.neighbour_body(known))])
    assert known in ours.neighbours()
    seen = {(m.get_attr("NDA_DST"), m.get_attr("NDA_LLADDR")) for m in theirs.get_neighbours()}
    assert (known.address, known.mac) in seen


def test_the_redirection_is_seen(both):
    """Qdisc and filter are there for pyroute2; twice is once; taking away twice is no error."""
    ours, theirs = both
    index, target = ours.link(name="eth0").index, ours.link(name="eth9").index
    for _ in range(2):
        ours.redirect(index, target)
    [filter_] = [f for f in theirs.get_filters(index=index, parent=0xFFFF0000)
                 if f.get_nested("TCA_OPTIONS", "TCA_U32_ACT")]  # fmt: skip
    assert filter_.get_attr("TCA_KIND") == "u32"
    for _ in range(2):
        ours.drop_redirect(index)
    assert theirs.get_filters(index=index, parent=0xFFFF0000) == ()


def test_refusals_name_the_operation(both):
    """An error says what was tried, errno and the kernel's text."""
    ours, _ = both
    with pytest.raises(NetlinkError, match="no such device") as caught:
        ours.set_link(9999, up=True)
    assert caught.value.errno == 19
    assert caught.value.filename == "change the link 9999"
    with pytest.raises(NetlinkError, match="mtu less than device minimum"):
        ours.set_link(ours.link(name="eth0").index, mtu=10)
    with pytest.raises(NetlinkError, match="no such device"):
        ours.link(name="nothing")


def test_all_of_a_batch_is_tried(both):
    """One refusal does not keep the rest from being done, and is the one that is raised."""
    ours, _ = both
    index = ours.link(name="eth0").index
    bodies = [
        rt.change_link(index, mtu=1300), rt.change_link(9999, mtu=1300),
        rt.change_link(index, flags=rt.UP, mask=rt.UP),
    ]  # fmt: skip
    with pytest.raises(NetlinkError, match="no such device"):
        ours.apply([(rt.SETLINK, 0, body, "try") for body in bodies])
    assert ours.link(index).up
    assert ours.link(index).mtu == 1300


def test_many_answers(both):
    """A dump of many parts is read whole."""
    ours, _ = both
    index = ours.link(name="eth0").index
    ours.set_link(index, up=True)
    wanted = [rt.Address(index, f"10.{n // 250}.{n % 250}.1", 32) for n in range(1000)]
    for start in range(0, 1000, 100):
        part = wanted[start : start + 100]
        ours.apply([change(rt.NEWADDR, rt.address_body(a)) for a in part])
    assert set(wanted) <= set(ours.addresses())


def test_changes_are_told(both, pod):
    """A socket of the groups hears of links, addresses and routes; nothing is nothing."""
    ours, _ = both
    with Inside(pod.fd):
        news = Rtnetlink(GROUPS)
    with news:
        assert not news.changed()
        index = ours.link(name="eth0").index
        ours.set_link(index, up=True)
        until(news.changed)
        ours.apply([change(rt.NEWADDR, rt.address_body(rt.Address(index, "10.1.0.2", 24)))])
        until(news.changed)
        for n in range(3000):  # more than its buffer holds: still only a change
            ours.set_link(index, mtu=1400 + n % 2)
        until(news.changed)
