"""Ctrl-C in the first moments of ``kata run``: what was taken is given back."""

import os
import signal
import threading

import pytest

from kata.cli.run import _Run
from kata.runtime.store import ContainerState, Store, new_id
from kata.runtime.timing import Marks


class Interrupted(Store):
    """A store that is interrupted when it has made a container's files and lock."""

    def create(self, state):
        """Make them."""
        lock = super().create(state)
        signal.pthread_kill(threading.get_ident(), signal.SIGINT)  # the command has one thread
        return lock


def test_a_name_is_not_kept(directory):
    """The signal comes when the lock is known, so that it is let go and the name is free again."""
    store = Interrupted(directory)
    state = ContainerState(id=new_id(), name="box")
    one = _Run(None, None, None, store, state, (0, Marks()))
    before = {n: signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGHUP)}
    try:
        with pytest.raises(KeyboardInterrupt):
            one.reserve()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    one.give_up()
    assert os.listdir(f"{directory}/names") == []
    assert not os.path.exists(store.directory(state.id))
