"""What a shim left that died before it was asked for anything: who removes it, and who may not."""

import os
import threading

import pytest

from kata.runtime.store import CREATED, ContainerState, Store, new_id
from kata.shim import leftovers
from kata.shim.delete import delete
from kata.shim.order import Order


@pytest.fixture
def store(tmp_path):
    """A store, with a place for bundles beside it."""
    return Store(str(tmp_path / "run"))


def left(store, name="n.box", **more):
    """A container that is being made; its state and the lock that its shim holds."""
    bundle = f"{os.path.dirname(store.root)}/{name}"
    state = ContainerState(id=new_id(), name=name, bundle=bundle, **more)
    return state, store.create(state)


def test_what_nobody_will_ask_for_is_removed(store, tmp_path):
    """Directory, name and socket, once the lock is free."""
    path = tmp_path / "sock"
    path.touch()
    state, lock = left(store, traces=(str(path),))
    leftovers.sweep(store)
    assert store.ids() == [state.id]
    os.close(lock)
    leftovers.sweep(store)
    assert store.ids() == []
    assert os.listdir(f"{store.root}/names") == []
    assert not path.exists()


def test_what_somebody_will_ask_for_stays(store):
    """A bundle that is there, a container that was made: containerd knows of it."""
    known, one = left(store, "n.known")
    os.mkdir(known.bundle)
    made, two = left(store, "n.made", status=CREATED)
    plain = ContainerState(id=new_id(), name="plain")
    for lock in (one, two, store.create(plain)):
        os.close(lock)
    leftovers.sweep(store)
    assert set(store.ids()) == {known.id, made.id, plain.id}


def test_delete_waits_for_a_shim_that_removes_its_own(store, tmp_path, monkeypatch):
    """Once ``delete`` has answered nothing is there, though it was not the one to remove it."""
    settings = tmp_path / "kata.toml"
    settings.write_text(f'[runtime]\nstate_root = "{store.root}"\n')
    monkeypatch.setenv("KATA_CONFIG", str(settings))
    state, lock = left(store)
    os.unlink(f"{store.directory(state.id)}/state.json")  # it has begun

    def finish() -> None:
        store.forget(state)
        os.close(lock)

    timer = threading.Timer(0.3, finish)
    timer.start()
    delete(Order(action="delete", namespace="n", id="box", bundle=str(tmp_path / "gone")))
    assert store.ids() == []
    timer.join()
