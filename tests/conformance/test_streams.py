"""Standard streams, terminals and exit codes."""

import os
import threading

import pytest

from conformance.bundle import config
from conformance.console import Console
from conformance.container import eventually

MEGABYTES = 6 << 20


def test_output_and_errors_are_apart(suite):
    """Standard output and standard error are the caller's two pipes."""
    done = suite.done(config("sh", "-c", "echo out; echo err >&2"))
    assert (done.out, done.err) == ("out\n", "err\n")


def test_large_output_is_whole(suite):
    """Megabytes written at once arrive, every byte of them."""
    done = suite.done(config("probe", "write", str(MEGABYTES)))
    assert len(done.out) == MEGABYTES
    assert done.out[:64] * (MEGABYTES // 64) == done.out


def test_binary_output_is_untouched(suite):
    """Bytes of every value come through a pipe as they are."""
    script = 'for n in 0 1 3 4 10 13 26 127 200 255; do printf "\\\\$(printf %o $n)"; done'
    done = suite.done(config("sh", "-c", script))
    assert bytes(done.streams.bytes[1]) == bytes([0, 1, 3, 4, 10, 13, 26, 127, 200, 255])


def test_output_ends_with_the_container(suite):
    """The last writer is the container: its pipes reach their end when it does."""
    with suite.running(config("sh", "-c", "echo last")) as container:
        container.streams.drain()
        assert container.out == "last\n"


def test_closed_output_is_felt(suite):
    """A program that writes into a pipe nobody reads any more gets SIGPIPE."""
    script = "trap '' PIPE; sleep 0.3; echo x; echo y >&2; echo z || exit 9"
    with suite.running(config("sh", "-c", script)) as container:
        container.streams.close()
        assert container.wait() in (9, 1)


def feed(fd: int, data: bytes) -> threading.Thread:
    """Write from a thread, then close: a caller that pipes a file in."""

    def write() -> None:
        with open(fd, "wb") as file:
            file.write(data)

    thread = threading.Thread(target=write)
    thread.start()
    return thread


def test_input_arrives_and_ends(suite):
    """What the caller writes arrives, and its end is seen."""
    ours = os.pipe()
    thread = feed(ours[1], b"x" * MEGABYTES)
    try:
        done = suite.done(config("wc", "-c"), stdin=ours[0])
    finally:
        os.close(ours[0])
        thread.join()
    assert done.out == f"{MEGABYTES}\n"


def test_input_and_output_together(suite):
    """A conversation: each answer comes before the next question."""
    theirs, ours = os.pipe()
    script = "while read line; do echo got $line; done; echo end"
    try:
        with suite.running(config("sh", "-c", script), stdin=theirs) as container:
            for word in ("one", "two", "three"):
                os.write(ours, f"{word}\n".encode())
                container.streams.expect(f"got {word}\n")
            os.close(ours)
            os.close(theirs)
            theirs = ours = -1
            assert container.wait() == 0
            assert container.out.endswith("end\n")
    finally:
        for end in {theirs, ours} - {-1}:
            os.close(end)


@pytest.mark.parametrize("code", [0, 1, 42, 255])
def test_exit_code(suite, code):
    """The pid file's process exits with the program's code."""
    assert suite.done(config("sh", "-c", f"exit {code}")).code == code


def test_death_by_a_fault(suite):
    """A child that dies of a signal is 128 and its number to its parent, and so to the caller."""
    assert suite.done(config("sh", "-c", "sh -c 'kill -SEGV $$'; exit $?")).code == 139


def test_descriptors_are_passed_on(suite):
    """--preserve-fds gives the program descriptors from 3 on."""
    ours, theirs = os.pipe()
    # the runtime takes numbers, so the child needs the descriptor at 3
    saved = os.dup(3) if is_open(3) else -1
    try:
        os.dup2(theirs, 3)
        os.set_inheritable(3, True)
        done = suite.done(config("sh", "-c", "echo preserved >&3"), "--preserve-fds", "1", fds=(3,))
    finally:
        if saved >= 0:
            os.dup2(saved, 3, inheritable=False)
            os.close(saved)
        else:
            os.close(3)
        os.close(theirs)
    with open(ours, encoding="utf-8") as file:
        assert file.read() == "preserved\n"
    assert done.code == 0


def is_open(fd: int) -> bool:
    """Whether a descriptor is in use."""
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


@pytest.fixture(scope="module")
def typed(suite):
    """A container with a terminal: the probe's facts, then a shell that is typed at."""
    script = (
        "trap 'echo resized $(stty size)' WINCH; trap 'echo interrupted' INT\n"
        "probe facts; ls -l /dev/console; echo begin\n"
        'while :; do read line && echo "read <$line>"; done'
    )
    process = {"terminal": True, "consoleSize": {"height": 33, "width": 101}}
    with (
        Console(suite.folder()) as console,
        suite.created(config("sh", "-c", script, process=process),
                      "--console-socket", console.path) as container,
    ):  # fmt: skip
        console.accept()
        container.start().ok()
        console.greeting = console.expect(b"begin\r\n")
        yield container, console


NO_SIZE = "stty: standard input"  # what busybox says of a terminal that has none


@pytest.mark.parametrize(
    ("size", "shown"),
    [
        ({"width": 80}, NO_SIZE), ({}, NO_SIZE),
        ({"height": (1 << 33) + 24, "width": 65616}, "24 80"),
    ],
)  # fmt: skip
def test_odd_sizes(suite, size, shown):
    """Of each number the low 16 bits count; with one that is missing there is no size."""
    spec = config("stty", "size", process={"terminal": True, "consoleSize": size})
    with (
        Console(suite.folder()) as console,
        suite.created(spec, "--console-socket", console.path) as container,
    ):  # fmt: skip
        console.accept()
        container.start().ok()
        assert console.expect(b"\n").strip() == shown


def facts_of(console: Console) -> str:
    """The greeting, without the terminal's carriage returns."""
    return console.greeting.replace("\r\n", "\n")


def test_terminal_comes_over_the_socket(typed):
    """One descriptor arrives by SCM_RIGHTS, and it is a terminal."""
    assert os.isatty(typed[1].fd)


def test_terminal_on_all_streams(typed):
    """Input, output and errors are the terminal."""
    assert '"tty":[1,1,1]' in facts_of(typed[1])


def test_terminal_controls(typed):
    """It is the controlling terminal of the program's session."""
    assert '"controlling":1' in facts_of(typed[1])


def test_terminal_translates_newlines(typed):
    """Output is processed as a terminal's is: newlines come as carriage return and newline."""
    assert "\r\n" in typed[1].greeting


def test_console_size(typed):
    """consoleSize is the size before the program starts."""
    assert '"size":[33,101]' in facts_of(typed[1])


def test_console_device(typed):
    """/dev/console is there."""
    assert "/dev/console" in facts_of(typed[1])
    assert "No such file" not in facts_of(typed[1])


def test_terminal_echoes_and_reads(typed):
    """What is typed is echoed, and read a line at a time."""
    console = typed[1]
    console.send(b"hello\r")
    seen = console.expect(b"read <hello>\r\n")
    assert seen.startswith("hello\r\n")


def test_terminal_interrupts(typed):
    """Control-C sends SIGINT to the program."""
    typed[1].send(b"\x03")
    typed[1].expect(b"interrupted")


def test_terminal_resizes(typed):
    """A new size arrives, with SIGWINCH."""
    typed[1].resize(50, 140)
    typed[1].send(b"\r")
    typed[1].expect(b"resized 50 140")


def test_terminal_ends(suite):
    """Control-D ends the input; the code comes; the terminal hangs up."""
    spec = config("sh", "-c", "cat; echo over; exit 5", process={"terminal": True})
    with (
        Console(suite.folder()) as console,
        suite.running(spec, "--console-socket", console.path) as container,
    ):
        console.accept()
        console.send(b"\x04")
        assert "over" in console.drain()
        container.streams.drain()
        assert container.wait() == 5


def test_terminal_needs_a_socket(suite):
    """create with a terminal and no --console-socket is refused."""
    suite.refused(config("true", process={"terminal": True})).refused("console", "terminal", "tty")


def test_socket_needs_a_terminal(suite):
    """create with --console-socket and no terminal is refused."""
    with Console(suite.folder()) as console:
        suite.refused(config("true"), "--console-socket", console.path).refused("console")


def test_console_socket_that_is_missing(suite):
    """A console socket that nobody listens on is an error, and nothing is left."""
    spec = config("true", process={"terminal": True})
    suite.refused(spec, "--console-socket", "/nowhere/socket").refused()


def test_background_process_dies_with_the_first(suite):
    """When the first process ends, all others of the container do."""
    with suite.running(config("sh", "-c", "sleep 1000 & exit 3")) as container:
        assert container.wait() == 3
        eventually(lambda: container.status == "stopped", "the stop")
