"""Create, start, state, kill, delete: the states, the ways between them, and what is refused."""

import os
import time

import pytest

from conformance.bundle import config
from conformance.container import eventually

ANNOTATIONS = {"org.example.one": "1", "org.example.two": "a b"}
SLEEP = ("sleep", "100000")


@pytest.fixture(scope="module")
def created(suite):
    """A container that was created and is not started."""
    with suite.created(config("echo", "started", annotations=ANNOTATIONS)) as container:
        yield container


@pytest.fixture(scope="module")
def running(suite):
    """A container that runs, and tells the time."""
    with suite.running(config("probe", "busy", annotations=ANNOTATIONS)) as container:
        yield container


@pytest.fixture(scope="module")
def stopped(suite):
    """A container whose program has ended, and that is not deleted."""
    with suite.running(config("sh", "-c", "exit 3", annotations=ANNOTATIONS)) as container:
        assert container.wait() == 3
        eventually(lambda: container.status == "stopped", "the stop")
        yield container


def test_created_status(created):
    """After create the status is created."""
    assert created.status == "created"


def test_create_does_not_start_the_program(created):
    """The program waits for start."""
    created.streams.read(0.2)
    assert created.out == ""


def test_state_has_what_the_specification_asks(created):
    """The state has version, id, status, pid, bundle and annotations."""
    state = created.state
    assert state["id"] == created.id
    assert state["ociVersion"].startswith("1.")
    assert state["pid"] > 0
    assert state["annotations"] == ANNOTATIONS


def test_state_bundle_is_absolute(created):
    """The bundle in the state is the absolute path of the bundle."""
    assert os.path.samefile(created.state["bundle"], created.bundle)
    assert os.path.isabs(created.state["bundle"])


def test_state_rootfs(created):
    """The state also names the root file system, as engines' tools expect."""
    assert created.state["rootfs"] == created.rootfs


def test_state_created_is_a_time(created):
    """The state says when the container was created, in UTC by RFC 3339."""
    stamp = created.state["created"]
    assert stamp.startswith(time.strftime("%Y-", time.gmtime()))
    assert stamp.endswith("Z")


def test_state_pid_is_that_of_the_pid_file(created):
    """The pid in the state is the one in the pid file."""
    assert created.state["pid"] == created.pid


def test_running_status(running):
    """After start the status is running, with the same pid."""
    state = running.state
    assert state["status"] == "running"
    assert state["pid"] == running.pid


def test_running_keeps_annotations(running):
    """Annotations stay in the state."""
    assert running.state["annotations"] == ANNOTATIONS


def test_stopped_status(stopped):
    """After the program's end the status is stopped and the pid 0."""
    state = stopped.state
    assert state["status"] == "stopped"
    assert state.get("pid", 0) == 0


def test_start_of_running_is_refused(running):
    """A running container cannot be started, and goes on."""
    running.start().refused("cannot start an already running container", "is running", "created")
    assert running.status == "running"


def test_start_of_stopped_is_refused(stopped):
    """A stopped container cannot be started."""
    stopped.start().refused("stopped")


def test_kill_of_stopped_is_refused(stopped):
    """A signal to a stopped container fails, in words that engines look for."""
    stopped.kill("9").refused("not running", "process already finished", "no such process")


def test_pause_of_stopped_is_refused(stopped):
    """A stopped container cannot be paused."""
    stopped.runtime("pause", stopped.id).refused("not running", "not", "cannot")


def test_resume_of_running_is_refused(running):
    """What is not paused cannot be resumed."""
    running.runtime("resume", running.id).refused("not paused")


def test_exec_in_stopped_is_refused(stopped):
    """No process can be added to a stopped container."""
    stopped.exec("--", "true").refused("stopped", "not running")


def test_ps_of_stopped(stopped):
    """ps of a stopped container lists nothing: it fails, or gives an empty list."""
    done = stopped.runtime("ps", "--format", "json", stopped.id)
    assert done.code or not done.json()


def test_delete_of_running_is_refused(running):
    """A running container cannot be deleted without force, and goes on."""
    running.delete().refused("not stopped", "running")
    assert running.status == "running"


def test_create_of_a_known_id_is_refused(suite, running):
    """An id can be used once; the container that has it is not touched."""
    other = suite.container(config(*SLEEP), running.id)
    try:
        other.create().refused("already exists", "exist")
    finally:
        other.finish()
    assert running.status == "running"


@pytest.mark.parametrize("verb", ["state", "start", "kill", "delete", "pause", "resume", "ps"])
def test_unknown_container(runtime, verb):
    """Every verb says of a container that does not exist that it does not."""
    runtime(verb, "conf-nobody").refused("does not exist")


def test_exec_in_unknown_container(runtime):
    """exec says so too."""
    runtime("exec", "conf-nobody", "true").refused("does not exist")


def test_delete_by_force_of_unknown(runtime):
    """delete --force of what does not exist succeeds, as engines clean up."""
    runtime("delete", "--force", "conf-nobody").ok()


def test_delete_of_stopped(suite):
    """delete of a stopped container removes its state; the id can be used again."""
    with suite.running(config("true")) as container:
        container.wait()
        eventually(lambda: container.delete().code == 0, "delete")
        suite.runtime("state", container.id).refused("does not exist")
        with suite.created(config("true"), name=container.id) as again:
            assert again.status == "created"


def test_delete_by_force_of_running(suite):
    """delete --force kills what runs: its code is that of SIGKILL, and the state is gone."""
    with suite.running(config(*SLEEP)) as container:
        container.delete("--force").ok()
        assert container.wait() == 137
        suite.runtime("state", container.id).refused("does not exist")


def test_delete_by_force_of_created(suite):
    """delete --force of what was never started leaves nothing."""
    with suite.created(config(*SLEEP)) as container:
        container.delete("--force").ok()
        assert container.wait() != 0
        suite.runtime("state", container.id).refused("does not exist")


def test_kill_of_created(suite):
    """A container that was not started can be killed."""
    with suite.created(config(*SLEEP)) as container:
        container.kill("KILL").ok()
        assert container.wait() == 137
        eventually(lambda: container.status == "stopped", "the stop")


@pytest.fixture(scope="module")
def paused(suite):
    """A container that is paused, and was heard of before."""
    with suite.running(config("probe", "busy")) as container:
        container.streams.expect("3\n")
        suite.runtime("pause", container.id).ok()
        while container.streams.read(0.2):
            pass
        yield container


def test_paused_status(paused):
    """The status is paused."""
    assert paused.status == "paused"


def test_pause_of_paused_is_refused(paused):
    """Once is enough, and it stays paused."""
    paused.runtime("pause", paused.id).refused("not running")
    assert paused.status == "paused"


def test_paused_is_silent(paused):
    """A paused program does nothing."""
    assert not paused.streams.read(0.3)


def test_exec_in_paused_is_refused(paused):
    """No process can be added to a paused container: it would hang."""
    paused.exec("--", "true").refused("paused")


def test_delete_of_paused_is_refused(paused):
    """A paused container is not stopped."""
    paused.delete().refused("paused", "not stopped")


def test_paused_is_listed(paused):
    """The list says so as well."""
    entries = paused.runtime("list", "--format", "json").ok().json()
    assert [e["status"] for e in entries if e["id"] == paused.id] == ["paused"]


def test_start_of_paused_is_refused(suite):
    """A created container that is paused does not start, and does once it is resumed."""
    with suite.created(config("echo", "on")) as container:
        suite.runtime("pause", container.id).ok()
        container.start().refused("paused")
        suite.runtime("resume", container.id).ok()
        suite.runtime("resume", container.id).refused("not paused")
        assert container.status == "created"
        container.start().ok()
        assert (container.wait(), container.out) == (0, "on\n")


def test_resume_goes_on(paused):
    """After resume the program continues where it was."""
    last = int(paused.out.split()[-1])
    paused.runtime("resume", paused.id).ok()
    paused.streams.expect(f"\n{last + 1}\n")
    assert paused.status == "running"


def test_kill_of_paused(suite):
    """SIGKILL ends a paused container at once, or when it is resumed."""
    with suite.running(config(*SLEEP)) as container:
        suite.runtime("pause", container.id).ok()
        container.kill("KILL").ok()
        suite.runtime("resume", container.id)
        assert container.wait() == 137


def test_delete_by_force_of_paused(suite):
    """delete --force also ends what is paused."""
    with suite.running(config(*SLEEP)) as container:
        suite.runtime("pause", container.id).ok()
        container.delete("--force").ok()
        assert container.wait() == 137


def test_roots_are_apart(suite, running, tmp_path):
    """--root is a world of its own: what is in one is unknown in another."""
    root = str(tmp_path / "root")
    suite.runtime("state", running.id, root=root).refused("does not exist")
    assert suite.runtime("list", "-q", root=root).ok().out.split() == []


def test_root_is_made(suite, tmp_path):
    """A root that is missing is made; the same id may be in two roots."""
    root = str(tmp_path / "new/root")
    container = suite.container(config("true"))
    words = ["create", "--bundle", container.bundle, "--pid-file", f"{container.bundle}/pid"]
    try:
        suite.runtime(*words, container.id, root=root).ok()
        assert suite.runtime("state", container.id, root=root).ok().json()["status"] == "created"
        assert suite.runtime("state", container.id).code
    finally:
        suite.runtime("delete", "--force", container.id, root=root)
