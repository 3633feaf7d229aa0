"""Engines whose runtime finds ready sandboxes: nothing differs but the time it takes."""

import pytest

from support.engines import IMAGE
from support.isolation import status
from support.pool import serving_in

SERVE = "echo page >/tmp/index.html; exec httpd -f -p 80 -h /tmp"
REQUEST = b"GET /index.html HTTP/1.0\r\n\r\n"


@pytest.fixture(scope="module")
def pool(place, prepared):
    """A pool of one: a container finds it full."""
    with serving_in(place, 1) as kept:
        yield kept


@pytest.fixture
def full(engine, pool):
    """An engine with our runtime, and the member that its next container takes."""
    if engine.runtime == "runc":
        pytest.skip("runc has no pool")
    [member] = pool.until_full(1)
    return engine, member


def taken(pool, member: int) -> bool:
    """Whether a member became a container's supervisor."""
    return member not in pool.ready() and "kata-ready" not in status(member)["Name"]


def test_a_service(full, pool):
    """A published port, a volume, an added process, its output; stop, and the start of it again."""
    engine, member = full
    name = engine.up("-p", "18080:80", "-v", "kept:/kept", IMAGE, "sh", "-c", SERVE)
    assert taken(pool, member)
    assert engine.place.reach(18080, REQUEST).endswith(b"page\n")
    assert engine.sh(name, "echo word >/kept/file; hostname") == engine.inspect(name)["Id"][:12]
    engine.ok("stop", "-t", "1", name)
    pool.until_full(1)
    engine.ok("start", name)
    assert engine.sh(name, "cat /kept/file") == "word"
    assert engine.place.reach(18080, REQUEST).endswith(b"page\n")


def test_to_the_end(full, pool):
    """Exit codes, both outputs and input are as ever."""
    engine, member = full
    words = ("run", "-i", "--rm", "--network=none", IMAGE, "sh", "-c", "cat; echo err >&2; exit 9")
    result = engine(*words, input=b"in")
    assert (result.code, result.stdout, result.err) == (9, b"in", "err")
    assert member not in pool.ready()


def test_a_terminal(full, pool):
    """A container with a terminal, whose size is that of the engine's."""
    engine, member = full
    with engine.terminal("run", "-it", "--rm", "--network=none", IMAGE, "sh") as terminal:
        terminal.expect(b"# ")
        terminal.send(b"tty; echo =$((40+2))\r")
        terminal.expect(b"/dev/pts/0")
        terminal.expect(b"=42")
        terminal.send(b"exit 4\r")
        assert terminal.wait() == 4
    assert member not in pool.ready()
