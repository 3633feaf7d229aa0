"""Windows: never more on the way than was granted, and what was passed on is granted again."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kata.errors import ProtocolError
from kata.wire.flow import MAX_CHUNK, WINDOW, ReceiveWindow, SendWindow

SIZES = st.integers(1, WINDOW)


@given(SIZES, st.data())
def test_nothing_beyond_the_window_and_no_standstill(size, data):
    """Whatever the order of sending and passing on: bounded, lossless, and never stuck."""
    sender, receiver = SendWindow(size), ReceiveWindow(size)
    total = data.draw(st.integers(0, 8 * size))
    sent = arrived = passed = 0
    while passed < total:
        if data.draw(st.booleans()):
            taken = sender.take(min(total - sent, data.draw(st.integers(1, MAX_CHUNK))))
            sent += taken
            receiver.received(taken)
            arrived += taken
        elif passed < arrived:
            count = arrived - passed
            passed += count
            if grant := receiver.consumed(count):
                sender.grant(grant)
        assert arrived - passed <= size
        if passed == arrived:
            assert sender.available > 0
    assert sent == arrived == passed == total


@given(SIZES, SIZES)
def test_take_is_bounded(size, wanted):
    """One reservation is at most a chunk, the wish, and the window."""
    window = SendWindow(size)
    assert window.take(wanted) == min(size, wanted, MAX_CHUNK)


def test_take_waits_at_zero_and_goes_on_after_a_grant():
    """An empty window gives nothing; a grant opens it by as much as it says."""
    window = SendWindow(10)
    assert (window.take(10), window.take(1)) == (10, 0)
    window.grant((4).to_bytes(4, "big"))
    assert (window.take(10), window.take(1)) == (4, 0)


@pytest.mark.parametrize("payload", [b"", b"\0\0\1", b"\0\0\0\0\1"])
def test_what_is_no_grant_is_refused(payload):
    """A grant is four bytes."""
    window = SendWindow(10)
    window.take(10)
    with pytest.raises(ProtocolError, match="malformed"):
        window.grant(payload)


def test_grants_only_give_back():
    """A peer cannot make us send more than the window by granting what was never sent."""
    window = SendWindow(10)
    window.take(3)
    with pytest.raises(ProtocolError, match="beyond its size"):
        window.grant((4).to_bytes(4, "big"))


def test_a_peer_that_sends_too_much_is_refused():
    """More than the window is a breach, by one byte too."""
    window = ReceiveWindow(10)
    window.received(10)
    with pytest.raises(ProtocolError, match="more than its window"):
        window.received(1)


def test_grants_are_made_at_half_the_window():
    """Small amounts are saved up, so that a stream does not cost a frame per read."""
    window = ReceiveWindow(10)
    window.received(10)
    assert window.consumed(4) == b""
    assert window.consumed(1) == (5).to_bytes(4, "big")
    assert window.consumed(5) == (5).to_bytes(4, "big")
