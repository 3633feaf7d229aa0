"""Namespaces connected to taps: frames both ways, links that come and go, nothing left behind."""

import os
import socket
import subprocess
import threading
from contextlib import ExitStack, contextmanager

import pytest

from kata.errors import HostError, Unsupported
from kata.linux import tap
from kata.linux.namespaces import Inside, remove_mounted
from kata.network.namespace import Network, new_namespace
from kata.network.sample import SampleNetwork
from support.host import need_tool
from support.netns import until
from support.source import CHECKOUT

HEADER = bytes(10)  # of virtio-net, in front of each frame of a tap
FRAME = b"\xff" * 6 + bytes.fromhex("0a0000000001") + b"\x88\xb5" + b"a frame of ours" + bytes(40)


@pytest.fixture
def wired(pod, outside):
    """A pod with a usual link, its other end up outside."""
    need_tool("tc")
    pod.wire("eth0", outside, "far", "mtu 1400")
    pod.ip("address add 10.1.0.2/24 dev eth0")
    pod.ip("link set eth0 up")
    outside.ip("link set far up")
    pod.ip("route add default via 10.1.0.1")
    return pod


@contextmanager
def packets(namespace, name):
    """A socket that sees the frames of a link."""
    with Inside(namespace.fd):
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x88B5))
    sock.bind((name, 0x88B5))
    sock.settimeout(10)
    yield sock
    sock.close()


def read_frame(fd):
    """The next frame of ours that comes out of a tap."""

    def one():
        try:
            data = os.read(fd, 4096)
        except BlockingIOError:
            return None
        return data if b"a frame of ours" in data else None

    return until(one)


def test_frames_go_both_ways(wired, outside):
    """What a VMM writes to the tap leaves by the link, what arrives at the link is read there."""
    with Network(wired.fd) as network, packets(outside, "far") as sock:
        [(_, fd, _)] = network.fds
        os.write(fd, HEADER + FRAME)
        assert sock.recv(4096) == FRAME
        sock.send(FRAME)
        assert read_frame(fd)[-len(FRAME) :] == FRAME


def test_nothing_is_left(wired):
    """Taps and filters are gone afterwards, whatever the link's state; the link is untouched."""
    before = wired.state()
    with Network(wired.fd) as network:
        assert "tap0_kata" in wired.links()
        assert ("eth0", "ingress") in wired.state()[1]
        assert network.plan.endpoints[0].link.name == "eth0"
    assert wired.state() == before


def test_the_tap_has_the_link_s_mtu(wired):
    """Frames as large as the link's pass the tap; a change of it is followed."""
    with Network(wired.fd) as network:
        assert wired.links()["tap0_kata"]["mtu"] == 1400
        wired.ip("link set eth0 mtu 9000")
        assert network.refresh()
        assert wired.links()["tap0_kata"]["mtu"] == 9000
        [card] = network.guest_request().interfaces
        assert card.mtu == 9000


def test_the_tap_says_nothing_itself(wired):
    """The tap has no address of its own, so the guest sees no traffic of the host's kernel."""
    with Network(wired.fd):
        addresses = wired.json("ip address show dev tap0_kata")[0]["addr_info"]
    assert addresses == []


def test_a_namespace_may_be_empty_first(pod, outside):
    """The tap is there before any link; a link that appears is connected and told."""
    told = []
    with Network(pod.fd) as network:
        assert network.guest_request().encode() == b""
        network.watch(lambda n: told.append(n.guest_request()))
        pod.wire("tmp", outside, "far")
        pod.ip("link set tmp name eth0")
        pod.ip("address add 10.1.0.2/24 dev eth0")
        pod.ip("link set eth0 up")
        outside.ip("link set far up")
        until(lambda: told and "10.1.0.2" in str(told[-1]))
        with packets(outside, "far") as sock:
            [(_, fd, _)] = network.fds
            os.write(fd, HEADER + FRAME)
            assert sock.recv(4096) == FRAME
        pod.ip("route add default via 10.1.0.1")
        until(lambda: told[-1].routes)
    assert told[-1].interfaces[0].name == "eth0"


def test_what_happens_before_the_watch_is_not_missed(wired):
    """A change between the first look and the watch is told at once."""
    told = []
    with Network(wired.fd) as network:
        wired.ip("address add 10.1.0.3/24 dev eth0")
        network.watch(lambda n: told.append(n.guest_request()))
        until(lambda: told and len(told[-1].interfaces[0].addresses) >= 2)


def test_what_failed_is_told_again(wired):
    """An error while telling reaches the caller, and the next change is told in full."""
    told, failures = [], []

    def changed(network):
        told.append(network.guest_request())
        if len(told) == 1:
            raise HostError("it did not work")

    with Network(wired.fd) as network:
        network.watch(changed, failures.append)
        wired.ip("address add 10.1.0.3/24 dev eth0")
        until(lambda: failures)
        wired.ip("link set lo mtu 60000")  # nothing that matters, and yet the guest is told
        until(lambda: len(told) > 1)
    assert str(failures[0]) == "it did not work"
    assert told[0].encode() == told[1].encode()


def test_a_link_of_another_kind_that_comes_later(wired):
    """It is reported by name; what is connected stays so."""
    failures = []
    with Network(wired.fd) as network:
        network.watch(lambda _: None, failures.append)
        wired.ip("tuntap add dev tun7 mode tun")
        wired.ip("address add 10.9.0.1/24 dev tun7")
        until(lambda: failures)
        assert len(network.plan.endpoints) == 1
    assert 'the network link "tun7" cannot be given' in str(failures[0])


def test_links_that_go_free_their_slot(pod, outside):
    """A removed link is no interface any more; the next one gets its card."""
    with Network(pod.fd) as network:
        pod.wire("eth0", outside, "far0")
        pod.ip("link set eth0 up")
        assert network.refresh()
        pod.ip("link delete eth0")
        assert network.refresh()
        assert network.guest_request().interfaces == []
        pod.wire("eth1", outside, "far1")
        pod.ip("link set eth1 up")
        assert network.refresh()
        [card] = network.guest_request().interfaces
        assert (card.device, card.name) == ("02:00:00:00:00:01", "eth1")
        assert network.unplugged() == ()


def test_more_links_than_wired_cards(wired, outside):
    """Each further link has a tap that is to be plugged, and is named once."""
    wired.wire("eth1", outside, "far1")
    wired.ip("link set eth1 up")
    with Network(wired.fd) as network:
        assert [slot for slot, _, _ in network.fds] == [0]
        [(slot, fd, _)] = network.unplugged()
        assert slot == 1
        assert fd >= 0
        assert network.unplugged() == ()
        devices = [card.device for card in network.guest_request().interfaces]
        assert devices == ["02:00:00:00:00:01", "02:00:00:00:00:02"]


@pytest.mark.parametrize("kind", ["macvlan", "bridge"])
def test_other_kinds_of_links(pod, outside, kind):
    """Links of other kinds are connected as well."""
    if kind == "macvlan":
        outside.ip("link add base type bridge")
        outside.ip(f"link add link base name eth0 netns {pod.path} type macvlan mode bridge")
    else:
        pod.ip(f"link add eth0 type {kind}")
    pod.ip("link set eth0 up")
    with Network(pod.fd) as network:
        [card] = network.guest_request().interfaces
        assert card.name == "eth0"
        assert ("eth0", "ingress") in pod.state()[1]


def test_a_link_that_no_card_can_stand_for(pod):
    """It is refused by name and kind, and nothing is left."""
    pod.ip("tuntap add dev tun7 mode tun")
    pod.ip("address add 10.9.0.1/24 dev tun7")
    before = pod.state()
    with pytest.raises(Unsupported, match=r'"tun7" cannot be given .*: tun'):
        Network(pod.fd).__enter__()
    assert pod.state() == before


def test_two_sandboxes_in_one_namespace(wired):
    """The second is refused and disturbs nothing of the first."""
    with Network(wired.fd):
        before = wired.state()
        with pytest.raises(HostError, match="cannot make a tap device") as caught:
            Network(wired.fd).__enter__()
        assert "another sandbox" in caught.value.hint
        assert wired.state() == before


@pytest.mark.parametrize("path", ["/nonexistent", "/dev/null"])
def test_what_is_no_namespace(path):
    """A wrong path is named."""
    with pytest.raises(HostError, match=f'cannot enter the network namespace "{path}"'):
        Network(path).__enter__()


def test_the_model_none_makes_nothing(wired):
    """No tap, no filter, nothing for the guest."""
    before = wired.state()
    with Network(wired.fd, model="none") as network:
        assert wired.state() == before
        assert network.fds == network.unplugged() == ()
        assert network.guest_request().encode() == b""
    with pytest.raises(Unsupported, match='no internetworking model "bridged"'):
        Network(wired.fd, model="bridged")


def test_the_namespace_may_go_first(outside):
    """An engine that takes link and namespace away early is no error."""
    from support.netns import Namespace

    pod = Namespace()
    pod.wire("eth0", outside, "far")
    pod.ip("link set eth0 up")
    network = Network(pod.path).__enter__()
    pod.ip("link delete eth0")
    pod.ip("link delete tap0_kata")
    pod.close()
    network.close()
    network.close()


def test_after_a_crash_the_namespace_can_be_used_again(wired):
    """A holder that is killed leaves no tap, and its filters do not disturb the next."""
    script = f"""
import sys, time
sys.path.insert(0, {CHECKOUT + "/src"!r})
from kata.network.namespace import Network
Network({wired.path!r}).__enter__()
print("there", flush=True)
time.sleep(60)
"""
    holder = subprocess.Popen(["/usr/bin/python3", "-ISc", script], stdout=subprocess.PIPE)
    assert holder.stdout.readline() == b"there\n"
    holder.kill()
    holder.communicate()
    until(lambda: "tap0_kata" not in wired.links())
    with Network(wired.fd):
        filters = wired.json("tc filter show dev eth0 ingress")
    assert len([f for f in filters if "options" in f and "fh" in f["options"]]) <= 2


def test_only_the_calling_thread_is_inside(pod):
    """Another thread stays where it was while one is in a namespace, and so is that one after."""
    seen = []

    def look():
        seen.append(os.readlink("/proc/thread-self/ns/net"))

    look()
    with Inside(pod.fd):
        look()
        other = threading.Thread(target=look)
        other.start()
        other.join()
    look()
    outer, inner, elsewhere, after = seen
    assert inner != outer
    assert after == outer
    assert elsewhere in (outer, inner)  # a thread that is made inside begins there


def test_a_namespace_of_our_own(directory):
    """It has a loopback that is up, can be mounted at a path, and goes with it."""
    path = f"{directory}/net"
    fd = new_namespace(path)
    try:
        other = os.open(path, os.O_RDONLY)
        assert os.fstat(other).st_ino == os.fstat(fd).st_ino
        with Inside(other):
            out = subprocess.check_output(["ip", "-br", "link"])
        os.close(other)
        assert b"LOOPBACK,UP" in out
        with pytest.raises(HostError, match="exists"):
            new_namespace(path)
    finally:
        os.close(fd)
        remove_mounted(path)
    assert not os.path.exists(path)
    remove_mounted(path)


def test_vhost_is_used_where_it_works(directory):
    """What is not there, or is no vhost-net, is passed over."""
    assert tap.open_vhost(f"{directory}/none") == -1
    assert tap.open_vhost("/dev/null") == -1


def test_taps_move_to_another_namespace(wired, outside):
    """What a pool's machine has: taps elsewhere first, with a link there, then here, with ours."""
    before = wired.state()
    with ExitStack() as stack:
        elsewhere = stack.enter_context(SampleNetwork())
        network = stack.enter_context(Network(elsewhere, slots=1))
        [(_, fd, _)] = network.fds
        [endpoint] = network.plan.endpoints
        assert [a.address for a in endpoint.addresses if ":" not in a.address] == ["192.0.2.2"]
        network.move(wired.fd)
        [endpoint] = network.plan.endpoints
        assert (endpoint.link.name, endpoint.mtu) == ("eth0", 1400)
        with packets(outside, "far") as far:
            os.write(fd, HEADER + FRAME)
            assert far.recv(4096) == FRAME
            far.send(FRAME)
            assert FRAME in read_frame(fd)
    assert wired.state() == before
