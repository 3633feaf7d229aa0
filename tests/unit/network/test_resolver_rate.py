"""How fast a guest may ask: so many at once, so many in a second."""

from hypothesis import given
from hypothesis import strategies as st

from kata.network.resolver import ADDRESS, Bucket


def test_there_is_one_address():
    """The host asks Docker's resolver, and no other."""
    assert ADDRESS == ("127.0.0.11", 53)


def test_a_burst_and_then_the_rate():
    """What fits is free at once; then one waits for the next."""
    bucket = Bucket(10, 3, 0.0)
    assert [bucket.take(0.0) for _ in range(3)] == [0.0] * 3
    assert bucket.take(0.0) == 0.1
    assert bucket.take(0.05) == 0.05
    assert bucket.take(0.1001) == 0.0
    assert bucket.take(1000.0) == 0.0


@given(st.lists(st.floats(0, 2), max_size=60))
def test_never_more_than_the_rate_allows(pauses):
    """However the times lie, no more is taken than the burst and the rate since."""
    bucket, now, taken = Bucket(10, 3, 0.0), 0.0, 0
    for pause in pauses:
        now += pause
        while not bucket.take(now):
            taken += 1
    assert taken <= 3 + 10 * now + 1e-6
