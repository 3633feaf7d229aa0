"""When the keeper of a pool makes another member: nothing here forks."""

import pytest

from kata.config.settings import build
from kata.runtime import keeper


@pytest.fixture
def kept(tmp_path, monkeypatch):
    """A keeper of two whose clock, processors and forks are the test's."""
    config = build({"runtime": {"state_root": str(tmp_path)}})
    monkeypatch.setattr(keeper, "fingerprint", lambda *_: "all")
    made = keeper.Keeper(lambda: (config, None), 2, {}, lambda _text: None, lambda *_: None)
    clock, ticks = [100.0], [(0, 0)]
    monkeypatch.setattr(keeper.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(keeper, "processor_ticks", lambda: ticks[0])

    class Fork:
        state, pid = "ready", 1

    monkeypatch.setattr(made, "_fork", Fork)
    yield made, clock, ticks
    made._listener.close()


def test_one_after_the_other(kept):
    """As many as are wanted; no second one while one gets ready."""
    made, _, _ = kept
    made._fill()
    made._members[0].state = "starting"
    made._fill()
    assert len(made._members) == 1
    made._members[0].state = "ready"
    for _ in range(3):
        made._fill()
    assert len(made._members) == 2


def test_not_while_all_are_busy(kept):
    """After one was taken: a second of rest, then when there is time, at the latest after ten."""
    made, clock, ticks = kept
    made._not_before, made._busy_until, made._ticks = 101.0, 110.0, (0, 0)
    made._fill()
    assert not made._members  # it rests
    clock[0], ticks[0] = 101.5, (10, 200)
    made._fill()
    assert not made._members  # a twentieth was idle
    clock[0], ticks[0] = 101.7, (210, 400)
    made._fill()
    assert not made._members  # it looks again after half a second
    clock[0] = 102.1
    made._fill()
    assert len(made._members) == 1
    clock[0], made._not_before, made._busy_until = 111.0, 111.0, 110.0
    ticks[0] = (210, 600)
    made._fill()
    assert len(made._members) == 2


def test_failures_are_spaced(kept):
    """Each failure in a row makes it wait longer, up to a minute; a success forgets them."""
    made, clock, _ = kept

    class Sock:
        def __init__(self, data):
            self.data = data

        def recv(self, _size):
            return self.data

        def close(self):
            """Nothing to close."""

    waits = []
    for _ in range(6):
        made._fill()
        [member] = made._members
        member.state, member.sock = "starting", Sock(b"-why")
        made._heard(member)
        waits.append(made._not_before - clock[0])
        clock[0] = made._not_before
    assert waits == [1.0, 5.0, 30.0, 60.0, 60.0, 60.0]
    made._fill()
    [member] = made._members
    member.state, member.sock = "starting", Sock(b"+")
    made._heard(member)
    assert made._failures == 0
