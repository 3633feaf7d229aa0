"""The state on disk: names, locks, atomic replacement, recovery."""

import errno
import os
import signal
from types import SimpleNamespace

import pytest

from kata.cli.run import _Run
from kata.errors import AlreadyExists, HostError, InvalidInput, NotFound
from kata.runtime.lifetime import Lifetime
from kata.runtime.store import (
    LOST_EXIT_CODE,
    RUNNING,
    STOPPED,
    ContainerState,
    Store,
    check_name,
    new_id,
)
from kata.wire.record import replace


def make(store, name="one", **more):
    state = ContainerState(id=new_id(), name=name, created_ns=1, **more)
    return state, store.create(state)


def test_state_survives_a_round_trip(tmp_path):
    """What was saved is what is loaded, tuples and all."""
    store = Store(str(tmp_path / "state"))
    state, lock = make(store, command=("sh", "-c", "x"), labels=(("a", "b"),))
    assert store.load(state.id) == state
    os.close(lock)


def test_a_name_is_taken_once(tmp_path):
    """The second container of a name is refused, and leaves nothing."""
    store = Store(str(tmp_path))
    first, lock = make(store)
    with pytest.raises(AlreadyExists, match=first.id[:12]):
        make(store)
    assert store.ids() == [first.id]
    os.close(lock)


def test_a_dangling_name_is_free(tmp_path):
    """A name left by a crash in the middle of a removal does not block anybody."""
    store = Store(str(tmp_path))
    os.makedirs(tmp_path / "names")
    os.symlink("f" * 64, tmp_path / "names" / "one")
    _, lock = make(store)
    os.close(lock)


def test_death_of_the_supervisor_is_seen(tmp_path):
    """A running container whose lock is free counts as killed."""
    store = Store(str(tmp_path))
    state, lock = make(store)
    store.save(replace(state, status=RUNNING))
    assert store.load(state.id).status == RUNNING
    os.close(lock)
    lost = store.load(state.id)
    assert (lost.status, lost.exit_code) == (STOPPED, LOST_EXIT_CODE)
    assert "killed" in lost.error


def test_two_who_ask_do_not_take_each_other_for_the_owner(tmp_path):
    """Asking for liveness shares the lock."""
    import fcntl

    store = Store(str(tmp_path))
    state, lock = make(store)
    os.close(lock)
    fd = os.open(f"{store.directory(state.id)}/lock", os.O_RDWR)
    fcntl.flock(fd, fcntl.LOCK_SH)
    assert not store.alive(state.id)
    os.close(fd)


def test_find_by_name_id_and_beginning(tmp_path):
    """A container is found by its name, its id, and an unambiguous beginning of it."""
    store = Store(str(tmp_path))
    state, lock = make(store)
    for reference in ("one", state.id, state.id[:6]):
        assert store.find(reference).id == state.id
    for reference in ("two", "", "../one", "."):
        with pytest.raises(NotFound):
            store.find(reference)
    os.close(lock)


def test_forget_leaves_nothing(tmp_path):
    """Directory and name go, whatever else lies in the directory."""
    store = Store(str(tmp_path))
    state, lock = make(store)
    (tmp_path / state.id / "stray").write_text("x")
    store.forget(state)
    assert store.ids() == []
    assert os.listdir(tmp_path / "names") == []
    os.close(lock)


def test_unwritable_root_is_one_clear_error(tmp_path):
    """A state root that is no directory is refused with what to do."""
    (tmp_path / "file").write_text("")
    with pytest.raises(HostError, match="cannot write to the state directory") as caught:
        make(Store(str(tmp_path / "file")))
    assert "--root" in caught.value.hint


@pytest.mark.parametrize("name", ["", "a", "-ab", "a/b", "a b", "é1", "x" * 201])
def test_bad_names_are_refused(name):
    """Docker's rule for names."""
    with pytest.raises(InvalidInput):
        check_name(name)


def test_who_asks_leaves_nothing(tmp_path):
    """Asking whether a container lives does not bring its lock back while it is being removed."""
    store = Store(str(tmp_path))
    state, lock = make(store)
    os.unlink(f"{store.directory(state.id)}/lock")
    assert not store.alive(state.id)
    assert not os.path.exists(f"{store.directory(state.id)}/lock")
    os.close(lock)


def test_a_forgotten_container_is_not_noted_again(tmp_path):
    """A thread that still wants to note something does not bring the state back."""
    store = Store(str(tmp_path))
    state, lock = make(store)
    life = Lifetime(SimpleNamespace(resources={}), state, store)
    life.forget()
    os.mkdir(store.directory(state.id))
    life.change(status=RUNNING)
    assert os.listdir(store.directory(state.id)) == []
    os.close(lock)


def test_a_run_that_gives_up_leaves_nothing(tmp_path):
    """Reserved and not started, as with a cidfile that exists: the name is free again."""
    store = Store(str(tmp_path))
    state = ContainerState(id=new_id(), name="one", created_ns=1)
    run = _Run(None, None, None, store, state, (0, None))
    kept = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        run.reserve()
        run.give_up()
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)
    assert store.ids() == os.listdir(tmp_path / "names") == []


def test_a_full_disk_does_not_lose_the_end(tmp_path, monkeypatch):
    """Where nothing new can be written, the state is written over the one that is there."""
    store = Store(str(tmp_path))
    state, lock = make(store, name="x" * 100)

    def full(_path, _data, _mode=0):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("kata.runtime.store.write_atomic", full)
    for code in (6, 7):
        store.save(replace(state, name="x", status=STOPPED, exit_code=code))
        assert store.load(state.id).exit_code == code
    os.close(lock)


def test_a_place_that_will_not_do_is_known_before(tmp_path):
    """Nothing is made to find that out, and nothing is said of a place that is yet to be made."""
    (tmp_path / "file").write_text("")
    Store(str(tmp_path / "new" / "deeper")).check_writable()
    assert not (tmp_path / "new").exists()
    with pytest.raises(HostError, match="is not a directory"):
        Store(str(tmp_path / "file" / "x")).check_writable()


def test_a_name_of_a_creation_that_was_killed_is_free(tmp_path):
    """A container that never came to be blocks no other of its name, and goes with that."""
    store = Store(str(tmp_path))
    killed, lock = make(store)
    with pytest.raises(AlreadyExists):
        make(store)
    os.close(lock)
    again, lock = make(store)
    assert store.ids() == [again.id] != [killed.id]
    store.save(replace(again, status=RUNNING))
    os.close(lock)
    with pytest.raises(AlreadyExists):
        make(store)


def _contend(root: str, go: int, results: int) -> None:
    """One process that wants the name, and keeps it until the parent's end of ``go`` closes."""
    code = b"!"
    try:
        store = Store(root)
        os.read(go, 1)
        try:
            _, lock = make(store)
            assert lock >= 0
            code = b"+"
        except AlreadyExists:
            code = b"-"
    finally:
        os.write(results, code)
        os.read(go, 1)
        os._exit(0)


def test_a_name_is_taken_once_of_many_at_once(tmp_path):
    """However many want a name at the same moment, one gets it; the others leave nothing."""
    for round_number in range(40):
        root = f"{tmp_path}/{round_number}"
        reader, writer = os.pipe()
        pipes = [os.pipe() for _ in range(4)]
        pids = []
        for go, _ in pipes:
            pid = os.fork()
            if pid == 0:
                for _, start in pipes:
                    os.close(start)
                _contend(root, go, writer)
            pids.append(pid)
        for _, start in pipes:
            os.write(start, b".")
        answers = b""
        while len(answers) < len(pids):
            answers += os.read(reader, 16)
        try:
            assert sorted(answers) == sorted(b"+---")
            assert len(Store(root).ids()) == 1
            assert Store(root).named("one") is not None
        finally:
            for go, start in pipes:
                os.close(go)
                os.close(start)
            for pid in pids:
                os.waitpid(pid, 0)
            os.close(reader)
            os.close(writer)
