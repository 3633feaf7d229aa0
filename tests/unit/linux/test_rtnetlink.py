"""The rtnetlink codec against pyroute2's, and against bytes that nobody should send."""

import ipaddress
from socket import AF_INET6, inet_ntop

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
from pyroute2.netlink.rtnl.ndmsg import ndmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg
from pyroute2.netlink.rtnl.tcmsg import tcmsg

from kata.linux import netlink as nl
from kata.linux import rtnetlink as rt
from kata.linux import traffic

HEAD = nl.HEAD_SIZE
index = st.integers(1, 2**31 - 1)
byte = st.integers(0, 255)
v4 = st.integers(1, 2**32 - 1).map(lambda n: str(ipaddress.IPv4Address(n)))
v6 = st.binary(min_size=16, max_size=16).map(lambda b: inet_ntop(AF_INET6, b))
mac = st.binary(min_size=6, max_size=6).map(lambda b: b.hex(":"))
name = st.text("abcdefghijklmnopqrstuvwxyz0123456789_-", min_size=1, max_size=15)


def theirs(cls, attrs, **fields):
    """The body of a message as pyroute2 writes it."""
    message = cls()
    for key, value in fields.items():
        message[key] = value
    message["attrs"] = attrs
    message.encode()
    return bytes(message.data)[HEAD:]


def family(address):
    return 10 if ":" in address else 2


@given(index, v4 | v6, st.integers(0, 128), byte, v4 | st.just(""))
def test_addresses(number, address, prefix, scope, broadcast):
    """An address is written as pyroute2 writes it, and read back as it was."""
    broadcast = "" if ":" in address else broadcast
    ours = rt.Address(number, address, prefix, scope, rt.PERMANENT, broadcast)
    attrs = [("IFA_LOCAL", address), ("IFA_ADDRESS", address)]
    attrs += [("IFA_BROADCAST", broadcast)] if broadcast else []
    attrs += [("IFA_FLAGS", rt.PERMANENT)]
    assert rt.address_body(ours) == theirs(
        ifaddrmsg, attrs, family=family(address), prefixlen=prefix, scope=scope, index=number,
        flags=rt.PERMANENT,
    )  # fmt: skip
    assert rt.parse_address(rt.address_body(ours)) == ours


@given(st.data(), st.sampled_from([v4, v6]))
def test_routes(data, of):
    """A route is written as pyroute2 writes it, and read back as it was."""
    address = data.draw(of)
    ours = rt.Route(
        family=family(address), destination=data.draw(st.just("") | of),
        prefix=data.draw(st.integers(0, 32)), gateway=data.draw(st.just("") | of),
        index=data.draw(index), source=data.draw(st.just("") | of), scope=data.draw(byte),
        metric=data.draw(st.integers(0, 2**32 - 1)), table=data.draw(st.integers(1, 255)),
        mtu=data.draw(st.integers(0, 65535)), flags=data.draw(st.sampled_from([0, rt.ONLINK])),
    )  # fmt: skip
    attrs = [
        (key, value)
        for key, value in (
            ("RTA_DST", ours.destination), ("RTA_GATEWAY", ours.gateway),
            ("RTA_OIF", ours.index), ("RTA_PREFSRC", ours.source),
            ("RTA_PRIORITY", ours.metric), ("RTA_TABLE", ours.table),
        )
        if value
    ]  # fmt: skip
    written = theirs(
        rtmsg, attrs, family=ours.family, dst_len=ours.prefix, table=ours.table,
        proto=ours.protocol, scope=ours.scope, type=ours.kind, flags=ours.flags,
    )  # fmt: skip
    metrics = nl.nest(8, nl.number(2, ours.mtu)) if ours.mtu else b""
    assert rt.route_body(ours) == written + metrics
    assert rt.parse_route(rt.route_body(ours)) == ours


@given(v4, st.lists(st.tuples(v4, index, st.integers(1, 256)), min_size=1, max_size=4))
def test_routes_of_several_hops(destination, hops):
    """A multipath route is read as pyroute2 reads it, and read back as it was."""
    ours = rt.Route(family=2, destination=destination, prefix=32, hops=tuple(hops))
    body = rt.route_body(ours)
    assert rt.parse_route(body) == ours
    message = rtmsg(nl.message(rt.NEWROUTE, 0, 1, body))
    message.decode()
    read = message.get_attr("RTA_MULTIPATH")
    assert [(h.get_attr("RTA_GATEWAY"), h["oif"], h["hops"] + 1) for h in read] == hops


def test_a_gateway_of_the_other_family():
    """An IPv4 route may go by an IPv6 gateway."""
    ours = rt.Route(family=2, destination="10.0.0.0", prefix=8, gateway="fe80::1", index=2)
    message = rtmsg(nl.message(rt.NEWROUTE, 0, 1, rt.route_body(ours)))
    message.decode()
    assert message.get_attr("RTA_VIA") == {"family": 10, "addr": "fe80::1"}
    assert rt.parse_route(rt.route_body(ours)) == ours


@given(index, v4 | v6, mac)
def test_neighbours(number, address, lladdr):
    """A neighbour is written as pyroute2 writes it, and read back as it was."""
    ours = rt.Neighbour(number, address, lladdr)
    attrs = [("NDA_DST", address), ("NDA_LLADDR", lladdr)]
    assert rt.neighbour_body(ours) == theirs(
        ndmsg, attrs, family=family(address), ifindex=number, state=rt.NEIGHBOUR_PERMANENT,
        ndm_type=rt.UNICAST,
    )  # fmt: skip
    assert rt.parse_neighbour(rt.neighbour_body(ours)) == ours


@given(index, name, mac, st.integers(1, 2**31 - 1))
def test_changes_of_a_link(number, ifname, address, mtu):
    """A link is changed as pyroute2 changes it, and its settings are read back."""
    attrs = [("IFLA_ADDRESS", address), ("IFLA_MTU", mtu), ("IFLA_IFNAME", ifname)]
    body = rt.change_link(number, name=ifname, mac=address, mtu=mtu, flags=rt.UP, mask=rt.UP)
    assert body == theirs(ifinfmsg, attrs, index=number, flags=rt.UP, change=rt.UP)
    assert rt.parse_link(body) == rt.Link(number, ifname, address, mtu, rt.UP, medium=0)


def test_making_a_link():
    """A link is made as pyroute2 makes it, the kind's own settings included."""
    mode = {"attrs": [("IFLA_MACVTAP_MODE", 4)]}
    info = [("IFLA_INFO_KIND", "macvtap"), ("IFLA_INFO_DATA", mode)]
    attrs = [("IFLA_IFNAME", "t0"), ("IFLA_LINK", 3), ("IFLA_LINKINFO", {"attrs": info})]
    ours = rt.new_link("t0", "macvtap", parent=3, data=nl.number(1, 4))
    assert _plain(ours) == _plain(theirs(ifinfmsg, attrs))
    assert rt.parse_link(ours).kind == "macvtap"


def test_the_redirection_is_pyroute2_s():
    """Qdisc and filter are what pyroute2 sends for the same, and understood by it."""
    message = tcmsg(nl.message(traffic.NEWTFILTER, 0, 1, traffic.redirect(3, 7)))
    message.decode()
    options = message.get_attr("TCA_OPTIONS")
    selector = options.get_attr("TCA_U32_SEL")
    [action] = options.get_attr("TCA_U32_ACT").get_attrs("TCA_ACT_PRIO_1")
    mirred = action.get_attr("TCA_ACT_OPTIONS").get_attr("TCA_MIRRED_PARMS")
    assert (message["index"], message["parent"]) == (3, 0xFFFF0000)
    assert message.get_attr("TCA_KIND") == "u32"
    assert (selector["nkeys"], selector["flags"]) == (1, 1)
    assert [(k["key_mask"], k["key_val"]) for k in selector["keys"]] == [(0, 0)]
    assert action.get_attr("TCA_ACT_KIND") == "mirred"
    assert (mirred["ifindex"], mirred["eaction"], mirred["action"]) == (7, 1, 4)
    assert traffic.ingress(3) == theirs(
        tcmsg, [("TCA_KIND", "ingress")], index=3, handle=0xFFFF0000, parent=0xFFFFFFF1
    )


def _plain(body):
    """A body without the flag that marks attributes as nested, which pyroute2 leaves out."""
    return body.replace(b"\x12\x80", b"\x12\0").replace(b"\x02\x80", b"\x02\0")


PARSERS = (rt.parse_link, rt.parse_address, rt.parse_route, rt.parse_neighbour)


@given(st.sampled_from(PARSERS), st.binary(max_size=200))
def test_garbage_is_a_value_error(parse, data):
    """No bytes make a parser raise anything but ``ValueError``."""
    try:
        parse(data)
    except ValueError:
        pass


@given(st.binary(max_size=200))
def test_garbage_is_no_message(data):
    """No datagram makes the framing raise anything but ``ValueError``, or loop."""
    try:
        for item in nl.messages(data):
            nl.failure(item)
    except ValueError:
        pass


@given(st.lists(st.tuples(st.integers(0, 65535), st.binary(max_size=40)), max_size=5))
def test_messages_of_a_datagram(items):
    """What was framed is found again, in order."""
    frames = [nl.message(kind, 1, n, body) for n, (kind, body) in enumerate(items)]
    found = [(m.kind, m.number, m.body) for m in nl.messages(b"".join(frames))]
    assert found == [(kind, n, body) for n, (kind, body) in enumerate(items)]


@pytest.mark.parametrize("address", ["", "10.0.0", "fe80::1%eth0", "10.0.0.1/8", "nonsense"])
def test_what_is_no_address_is_refused(address):
    """Text that is no address raises ``ValueError``."""
    with pytest.raises(ValueError, match="not an IP address"):
        rt.pack_ip(address)


def test_refusals_carry_the_kernel_s_words():
    """The text of an extended acknowledgement is found, with and without the request repeated."""
    request = nl.message(16, 5, 9, bytes(32))
    words = nl.text(1, "device does not support it")
    code = (-95).to_bytes(4, "little", signed=True)
    capped = nl.Message(nl.ERROR, nl.CAPPED | nl.ACK_TLVS, 9, code + request[:HEAD] + words)
    whole = nl.Message(nl.ERROR, nl.ACK_TLVS, 9, code + request + words)
    for answer in (capped, whole):
        assert nl.failure(answer) == (95, "device does not support it")
    assert nl.failure(nl.Message(nl.ERROR, 0, 9, bytes(4) + request)) == (0, "")
