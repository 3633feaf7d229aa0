"""What of the pool needs no machine: who fits whom, and what goes over a connection."""

import os
import socket
import threading

import pytest

from kata.config.settings import build
from kata.machine.description import Machine
from kata.runtime import pool
from kata.runtime.machines import Launch, ready
from kata.runtime.template import Template
from kata.wire.record import fields, replace


def launch(**changes):
    """A decision with a template."""
    machine = Machine(
        kernel="k", initrd="i", image_digest="d", command_line="c", machine_type="pc", vcpus=1,
        memory_mib=512,
    )  # fmt: skip
    template = Template.__new__(Template)
    template.__dict__.update(key=changes.pop("key", "t"))
    return Launch(replace(machine, **changes), "/usr/bin/qemu", template, "", "6.1")


def test_what_fits():
    """Everything that makes a machine another makes its text another; where settings stand not."""
    config = build({})
    same = pool.fingerprint(config, launch())
    assert pool.fingerprint(build({}, sources=("/etc/elsewhere.toml",)), launch()) == same
    others = [
        pool.fingerprint(config, launch(memory_mib=1024)),
        pool.fingerprint(config, launch(key="u")),
        pool.fingerprint(config, replace(launch(), program="/opt/qemu")),
        pool.fingerprint(build({"agent": {"dial_timeout": 3}}), launch()),
    ]
    assert len({same, *others}) == 5


def test_no_pool_costs_nothing(tmp_path, monkeypatch):
    """Without a socket nothing is asked, nor is a decision made into text."""
    monkeypatch.setattr(pool, "fingerprint", lambda *_: pytest.fail("it was asked"))
    config = build({"runtime": {"state_root": str(tmp_path)}})
    assert ready(config, launch()) is None


def test_a_dead_pool_is_none(tmp_path):
    """A socket that a killed keeper left, and one that closes without a word."""
    config = build({"runtime": {"state_root": str(tmp_path)}})
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(f"{tmp_path}/factory.sock")
    assert ready(config, launch()) is None  # nobody listens
    listener.listen()

    def hang_up() -> None:
        listener.accept()[0].close()

    thread = threading.Thread(target=hang_up)
    thread.start()
    assert ready(config, launch()) is None
    thread.join()
    listener.close()
    assert pool.members(str(tmp_path)) is None


def handed(order, fds, answer):
    """What a member receives of an order, and what its taker makes of the answer."""
    keeper, member = pool.pair()
    got = []

    def take_on() -> None:
        got.append(pool.receive_order(member))
        if answer:
            member.sendall(answer)
        member.close()

    thread = threading.Thread(target=take_on)
    thread.start()
    taken = pool.Member(keeper, 1).hand(order, fds)
    thread.join()
    return taken, got[0]


def test_an_order_arrives_whole():
    """Far more than a socket holds at once, with its descriptors; ours stay open."""
    reader, writer = os.pipe()
    order = {"kind": "engine", "text": "x" * (1 << 20)}
    taken, (received, [theirs]) = handed(order, [writer], pool.TAKEN)
    assert taken
    assert received == {**order, "caller": os.getpid()}
    os.write(theirs, b"one")
    os.write(writer, b"two")
    assert os.read(reader, 6) == b"onetwo"
    for fd in (reader, writer, theirs):
        os.close(fd)


def test_a_member_that_ends_has_not_taken():
    """No answer is no."""
    assert not handed({"kind": "engine"}, [], b"")[0]


def test_half_an_order_is_none():
    """Who asks is killed while it writes: nothing comes of it, descriptors are closed."""
    keeper, member = pool.pair()
    reader, writer = os.pipe()
    pool.send_with_fds(keeper, (100).to_bytes(4, "little") + b"{", [writer])
    keeper.close()
    os.close(writer)
    assert pool.receive_order(member) is None
    assert os.read(reader, 1) == b""
    member.close()
    os.close(reader)


def test_the_shim_s_order_has_all_of_its_seat():
    """Whatever a seat holds goes by name, or as a descriptor."""
    from kata.shim import handing
    from kata.shim.seat import Seat

    named = set(Seat._record_fields)
    assert named == {*handing._NAMED, "order", "listener", "network", "host_network"}
    assert fields(launch())["reason"] == ""
