"""A terminal: what a person types reaches the process, and what it draws reaches the person."""

import os
import signal
import time

import pytest

from support.vm import IMAGE


def test_tty_is_the_first(kata):
    """``tty`` in a container with -t says /dev/pts/0."""
    with kata.terminal("run", "--rm", "-t", IMAGE, "tty") as terminal:
        terminal.expect(b"/dev/pts/0\r\n")
        assert terminal.wait() == 0


def test_without_t_there_is_none(kata):
    """Without -t the process has no terminal, even when the caller has."""
    with kata.terminal("run", "--rm", IMAGE, "tty") as terminal:
        terminal.expect(b"not a tty")
        assert terminal.wait() == 1


def test_typing_and_size(kata):
    """Lines typed reach a shell; the size is the caller's, and follows it."""
    with kata.terminal("run", "--rm", "-it", IMAGE, "sh", rows=33, columns=99) as terminal:
        terminal.expect(b"# ")
        terminal.send(b"stty size\n")
        terminal.expect(b"33 99")
        terminal.resize(40, 120)
        time.sleep(0.5)
        terminal.send(b"stty size\n")
        terminal.expect(b"40 120")
        terminal.send(b"exit 5\n")
        assert terminal.wait() == 5


def test_ctrl_c_interrupts_the_foreground(kata):
    """Ctrl-C ends the command a shell runs, not the shell, and not ``kata run``."""
    with kata.terminal("run", "--rm", "-it", IMAGE, "sh") as terminal:
        terminal.expect(b"# ")
        terminal.send(b"echo go; sleep 100\n")
        terminal.expect(b"go\r\n")
        time.sleep(0.3)
        terminal.send(b"\x03")
        terminal.expect(b"# ")
        terminal.send(b"echo still $?\n")
        terminal.expect(b"still 130")
        terminal.send(b"exit\n")
        terminal.wait()


def test_ctrl_z_stops_the_foreground(kata):
    """Ctrl-Z stops a command inside the container's shell, and fg goes on with it."""
    with kata.terminal("run", "--rm", "-it", IMAGE, "sh") as terminal:
        terminal.expect(b"# ")
        terminal.send(b"echo go; cat\n")
        terminal.expect(b"go\r\n")
        time.sleep(0.3)
        terminal.send(b"\x1a")
        terminal.expect(b"Stopped")
        terminal.send(b"fg\n")
        terminal.expect(b"fg\r\ncat\r\n")
        time.sleep(0.3)
        terminal.send(b"hello\n")
        terminal.expect(b"hello\r\nhello\r\n")
        terminal.send(b"\x04exit\n")
        terminal.wait()


def test_the_terminal_is_given_back(kata):
    """After the end the caller's terminal is as it was: it echoes again."""
    import termios

    with kata.terminal("run", "--rm", "-it", IMAGE, "sh") as terminal:
        before = termios.tcgetattr(terminal.fd)
        terminal.expect(b"# ")
        assert termios.tcgetattr(terminal.fd) != before
        terminal.send(b"exit\n")
        terminal.wait()
        assert termios.tcgetattr(terminal.fd) == before


def test_a_full_screen_program(kata):
    """vi draws its screen, takes keys, and writes a file."""
    script = "vi /tmp/f; cat /tmp/f"
    with kata.terminal("run", "--rm", "-it", IMAGE, "sh", "-c", script) as terminal:
        terminal.expect(b"~")
        terminal.send(b"ihello\x1b")
        time.sleep(0.3)
        terminal.send(b":wq\n")
        terminal.expect(b"hello\r\n")
        assert terminal.wait() == 0


def test_hanging_up_ends_the_session(kata):
    """A client that is killed leaves a container that can be removed."""
    with kata.terminal("run", "--rm", "--name", "hung", "-it", IMAGE, "sh") as terminal:
        terminal.expect(b"# ")
        os.kill(terminal.pid, signal.SIGKILL)
        terminal.wait()
    kata.ok("rm", "-f", "hung")


def test_closing_the_terminal_reaches_the_process(kata):
    """The process gets SIGHUP, and its exit code is the command's."""
    script = "trap 'exit 7' HUP; echo up; while :; do sleep 0.2; done"
    with kata.terminal("run", "--rm", "-it", IMAGE, "sh", "-c", script) as terminal:
        terminal.expect(b"up\r\n")
        assert _hung_up(terminal) == 7


def test_nothing_outlives_its_terminal_for_long(kata):
    """A process that ignores SIGHUP is killed: nobody could attach to it again."""
    with kata.terminal("run", "--rm", "-it", IMAGE, "sleep", "300") as terminal:
        time.sleep(2)
        assert _hung_up(terminal) == 129
    assert kata.left() == []


def _hung_up(terminal) -> int:
    """The exit code after the terminal was closed."""
    null = os.open("/dev/null", os.O_RDONLY)
    os.dup2(null, terminal.fd)
    os.close(null)
    return terminal.wait()


def test_a_stopped_command_shows_nothing(kata):
    """Without -t, too: what is written while the command is stopped comes once it goes on."""
    script = "echo up; while :; do echo x; sleep 0.1; done"
    with kata.terminal("run", "--rm", IMAGE, "sh", "-c", script) as terminal:
        terminal.expect(b"up\r\n")
        os.kill(terminal.pid, signal.SIGSTOP)  # the kernel ignores Ctrl-Z where no shell is
        os.waitpid(terminal.pid, os.WUNTRACED)
        while terminal._read(0.2):
            pass
        terminal.seen = b""
        assert not terminal._read(1)
        os.kill(terminal.pid, signal.SIGCONT)
        terminal.expect(b"x\r\nx\r\n")
        terminal.send(b"\x03\x03\x03")
        terminal.wait()


def test_streams_of_one_terminal_keep_their_order(kata):
    """Output and errors are shown as they were written, to the last line."""
    script = "for i in $(seq 200); do echo o$i; echo e$i >&2; done"
    with kata.terminal("run", "--rm", IMAGE, "sh", "-c", script) as terminal:
        assert terminal.wait() == 0
        lines = terminal.seen.decode().split()
    assert sorted(lines) == sorted(f"{k}{i}" for i in range(1, 201) for k in "oe")


def test_t_wants_a_terminal(kata):
    """-it with a pipe for standard input is refused in words."""
    result = kata("run", "--rm", "-it", IMAGE, "sh", input=b"")
    assert result.code == 125
    assert "not a TTY" in result.err


@pytest.mark.parametrize("more", [["--rm"], ["--name", "box"]])
@pytest.mark.parametrize("flags", [["-t"], []])
def test_a_reader_that_goes_away(kata, flags, more):
    """What nobody reads any more ends the process: by its terminal, or as a pipe."""
    process = kata.start("run", *flags, *more, IMAGE, "yes")
    assert process.stdout.readline().strip() == b"y"
    process.stdout.close()
    process.stdout = None
    process.communicate(timeout=30)
    assert process.returncode != 0
    kata("rm", "-f", "box")


def test_a_reader_of_an_exec_goes_away(kata):
    """The same of a process that was added, and only of that."""
    kata.ok("run", "-d", "--name", "box", IMAGE, "sleep", "1000")
    process = kata.start("exec", "-t", "box", "yes")
    assert process.stdout.readline().strip() == b"y"
    process.stdout.close()
    process.stdout = None
    process.communicate(timeout=30)
    assert process.returncode != 0
    assert kata.ok("exec", "box", "echo", "on") == "on"
    kata.ok("rm", "-f", "box")
