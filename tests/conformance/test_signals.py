"""kill: signals by name and number, to one and to all."""

import pytest

from conformance.bundle import config

SIGNALS = [
    ("HUP", 1), ("SIGHUP", 1), ("1", 1), ("INT", 2), ("SIGINT", 2), ("2", 2), ("QUIT", 3),
    ("SIGUSR1", 10), ("10", 10), ("USR2", 12), ("TERM", 15), ("SIGTERM", 15), ("15", 15),
    ("CONT", 18), ("SIGWINCH", 28), ("28", 28), ("34", 34), ("64", 64),
]  # fmt: skip


@pytest.fixture(scope="module")
def told(suite):
    """A container that names every signal it gets; all of them are sent."""
    with suite.running(config("probe", "signals")) as container:
        container.streams.expect("ready\n")
        yield container


@pytest.mark.parametrize(("word", "number"), SIGNALS, ids=[word for word, _ in SIGNALS])
def test_signal_arrives(told, word, number):
    """Names with and without SIG, and numbers, are what the program gets."""
    before = len(told.out)
    told.kill(word).ok()
    told.streams.expect(told.out[:before] + f"{number}\n")


def test_default_signal(told):
    """Without a word the signal is TERM."""
    before = told.out
    told.kill().ok()
    told.streams.expect(before + "15\n")


@pytest.mark.parametrize("word", ["SIGNOPE", "nope", "99999"])
def test_unknown_signal_is_refused(told, word):
    """What is no signal is an error, and nothing is sent."""
    told.kill(word).refused("signal", "invalid argument")
    assert told.status == "running"


def test_first_process_without_a_handler(suite):
    """The first process of a pid namespace is immune to what it does not handle, but for KILL."""
    with suite.running(config("sleep", "1000")) as container:
        container.kill("TERM").ok()
        container.kill("INT").ok()
        assert container.status == "running"
        assert container.stopped() == 137


def test_kill_all(suite):
    """kill --all reaches every process of the container."""
    script = "sleep 1000 & probe signals & exec probe signals"
    with suite.running(config("sh", "-c", script)) as container:
        container.streams.expect("ready\nready\n")
        container.runtime("kill", "--all", container.id, "USR1").ok()
        container.streams.expect("10\n10\n")
        assert container.status == "running"


def test_kill_all_ends_all(suite):
    """kill --all KILL ends the container, as containerd's shim stops it."""
    with suite.running(config("sh", "-c", "sleep 1000 & sleep 1000 & wait")) as container:
        container.runtime("kill", "--all", container.id, "9").ok()
        assert container.wait() == 137


def test_kill_all_of_stopped(suite):
    """kill --all of a stopped container is no fault that stops the caller's clean-up."""
    with suite.running(config("true")) as container:
        container.wait()
        done = container.runtime("kill", "--all", container.id, "9")
        assert done.code == 0 or "not running" in done.message or "no such process" in done.message
        container.delete("--force").ok()
