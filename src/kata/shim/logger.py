"""Programs that take a container's output: ``binary:///path?key=value``.

Source: containerd ``runtime/v2/logging``: the output is on descriptors 3 and 4, the program says
by closing 5 that it is ready; the query becomes its arguments.
"""

from __future__ import annotations

import _thread
import os
import select

from kata.errors import HostError, InvalidInput
from kata.linux import syscalls as sc

_STDOUT, _STDERR, _READY = 3, 4, 5
_EXEC_FAILED = 127
_READY_S = 10.0


def start(
    numbers: tuple[int, ...], uri: str, facts: dict[str, str], network: int
) -> dict[int, int]:
    """Start the program; gives the ends to write the streams to.

    ``network`` is the namespace for it to be in. Raises ``HostError``.
    """
    argv = arguments(uri)
    pairs = {number: os.pipe2(os.O_CLOEXEC) for number in (1, 2)}
    ready, wait = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        _become(argv, (pairs[1][0], pairs[2][0], wait), facts, network)
    os.close(wait)
    for reader, _ in pairs.values():
        os.close(reader)
    for number in set(pairs) - set(numbers):
        os.close(pairs[number][1])
    writers = {number: pairs[number][1] for number in numbers}
    if not _is_ready(ready, _READY_S):
        for fd in writers.values():
            os.close(fd)
        os.kill(pid, 9)
        os.waitpid(pid, 0)
        raise HostError(f'the logging program "{argv[0]}" does not start')
    _thread.start_new_thread(os.waitpid, (pid, 0))
    return writers


def arguments(uri: str) -> list[str]:
    """The program of an address and its arguments. Raises ``InvalidInput``."""
    path, _, query = uri.removeprefix("binary://").partition("?")
    if not path.startswith("/"):
        raise InvalidInput(f'"{uri}"', why="names no absolute path of a program")
    words = [_decoded(path)]
    for pair in filter(None, query.split("&")):
        key, _, value = pair.partition("=")
        words += [_decoded(key), *([_decoded(value)] if value else ())]
    return words


def _decoded(text: str) -> str:
    """Percent-encoding undone."""
    first, *rest = text.replace("+", " ").split("%")
    out = first.encode()
    for piece in rest:
        try:
            out += bytes((int(piece[:2], 16),)) + piece[2:].encode()
        except ValueError:
            out += b"%" + piece.encode()
    return out.decode(errors="replace")


def _become(
    argv: list[str], fds: tuple[int, int, int], facts: dict[str, str], network: int
) -> None:
    try:
        sc.setns(network, sc.CLONE_NEWNET)
        os.setsid()
        moved = [_above(fd) for fd in fds]
        null = os.open("/dev/null", os.O_RDWR)
        for number, fd in ((0, null), (1, null), (2, null), *zip((3, 4, 5), moved, strict=True)):
            os.dup2(fd, number)
        sc.close_range(_READY + 1)
        os.execve(argv[0], argv, {**os.environ, **facts})
    except OSError:
        pass
    finally:
        os._exit(_EXEC_FAILED)


def _above(fd: int) -> int:
    """A copy out of the way of the numbers that are given."""
    import fcntl

    return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 64)


def _is_ready(fd: int, patience: float) -> bool:
    """Whether the program closed its end in time; one that ended closed it too."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    ready = bool(poll.poll(patience * 1000))
    os.close(fd)
    return ready
