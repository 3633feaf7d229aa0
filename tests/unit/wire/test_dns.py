"""Names on the wire: framing, failures, and the bounds that both ends keep."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kata.wire import dns

QUERY = bytes.fromhex("1234010000010000000000000162000001") + b"\0\1"


@given(st.lists(st.binary(max_size=300)), st.integers(1, 700))
def test_a_stream_gives_back_the_messages_however_it_is_cut(messages, size):
    """What was framed comes out whole and in order, and nothing is left."""
    data = b"".join(dns.framed(message) for message in messages)
    buffer, found = bytearray(), []
    for at in range(0, len(data), size):
        buffer += data[at : at + size]
        while (message := dns.first(buffer)) is not None:
            found.append(message)
    assert found == messages
    assert not buffer


def test_the_largest_message():
    """A message has at most what two bytes can say."""
    buffer = bytearray(dns.framed(bytes(dns.MAX_SIZE)))
    assert dns.first(buffer) == bytes(dns.MAX_SIZE)
    with pytest.raises(OverflowError):
        dns.framed(bytes(dns.MAX_SIZE + 1))


def test_a_failure_is_an_answer_to_the_query():
    """Number, question and the wish for recursion are the query's; the code says what happened."""
    answer = dns.failure(QUERY)
    assert (answer[:2], answer[4:]) == (QUERY[:2], QUERY[4:])
    assert answer[2:4] == b"\x81\x82"
    assert not dns.plausible(answer)


@pytest.mark.parametrize("message", [b"", QUERY[:11], bytes(dns.MAX_SIZE + 1)])
def test_what_is_no_query(message):
    """Too short, too long; an answer is none either."""
    assert not dns.plausible(message)
    assert dns.plausible(QUERY)


def test_a_ledger_is_bounded_in_count():
    """One more than there may be has no room until one is struck out; a number is free once."""
    ledger = dns.Ledger()
    assert all(ledger.add(number, 12, number) for number in range(dns.MOST_QUERIES))
    assert not ledger.add(dns.MOST_QUERIES, 12, None)
    assert ledger.take(5) == 5
    assert ledger.take(5) is None
    assert not ledger.add(6, 12, None)
    assert ledger.add(5, 12, None)


def test_a_ledger_is_bounded_in_bytes():
    """Long queries fill it sooner, and leave all of their room."""
    ledger = dns.Ledger()
    fit = dns.MOST_BYTES // dns.MAX_SIZE
    for _ in range(3):
        assert all(ledger.add(number, dns.MAX_SIZE, "x") for number in range(fit))
        assert not ledger.add(fit, dns.MAX_SIZE, "x")
        for number in range(fit):
            ledger.take(number)
        assert len(ledger) == 0
