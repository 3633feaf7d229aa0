"""OCI hooks that run on the host: programs that are told a container's state on standard input.

The rule: in the order of the list, each to its end before the next; what a hook fails of is told
with its output. Source: runtime-spec config.md "POSIX-platform Hooks", runtime.md "Lifecycle".
"""

from __future__ import annotations

import os
import select
import time

from kata.errors import HostError
from kata.linux import syscalls as sc
from kata.wire.quickjson import loads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    Hook = dict[str, Any]

HOST_KINDS = ("prestart", "createRuntime", "createContainer", "poststart", "poststop")
_OUTPUT = 16 << 10  # bytes of a hook's output that an error shows
_EXEC_FAILED = 127


def run_all(kind: str, hooks: Iterable[Hook], state: bytes, *, network: int = -1) -> None:
    """Run the hooks of a kind; ``network`` is a namespace for them to be in.

    Raises ``HostError`` for the first that fails or takes longer than its timeout.
    """
    for index, hook in enumerate(hooks):
        status, output = _run(_placed(hook, state), state, network)
        if status:
            raise HostError(
                f"error running {kind} hook #{index}",
                why=f"{hook['path']}: {_how(status, hook)}"
                + (f", output: {output}" if output else ""),
            )


def _placed(hook: Hook, state: bytes) -> Hook:
    """With its path from the root: a relative one begins at the bundle, where runc stands."""
    if hook["path"].startswith("/"):
        return hook
    path = os.path.join(loads(state).get("bundle") or "/", hook["path"])
    return {"args": [hook["path"]], **hook, "path": path}


def _how(status: int, hook: Hook) -> str:
    if status == _TIMED_OUT:
        return f"not done after {hook['timeout']} s"
    return f"exit status {status}" if status > 0 else f"killed by signal {-status}"


_TIMED_OUT = 1 << 16


def _run(hook: Hook, state: bytes, network: int) -> tuple[int, str]:
    """Its exit status (negative: signal; ``_TIMED_OUT``) and the end of its output."""
    given, stdin = os.pipe2(os.O_CLOEXEC)
    stdout, taken = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        _become(hook, (given, taken), network)
    os.close(given)
    os.close(taken)
    try:
        _feed(stdin, state)
        output, in_time = _read(stdout, hook.get("timeout"))
    finally:
        os.close(stdout)
    if not in_time:
        os.killpg(pid, 9)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return (status if in_time else _TIMED_OUT), output


def _become(hook: Hook, streams: tuple[int, int], network: int) -> None:
    try:
        os.setpgid(0, 0)
        if network >= 0:
            sc.setns(network, sc.CLONE_NEWNET)
        given, taken = streams
        os.dup2(given, 0)
        os.dup2(taken, 1)
        os.dup2(taken, 2)
        sc.close_range(3)
        environment = dict(e.partition("=")[::2] for e in hook.get("env") or ())
        os.execve(hook["path"], hook.get("args") or [hook["path"]], environment)
    except BaseException as error:
        os.write(2, f"{getattr(error, 'strerror', None) or error}".encode())
    finally:
        os._exit(_EXEC_FAILED)


def _feed(fd: int, data: bytes) -> None:
    """The state is smaller than a pipe, so this does not wait for the hook."""
    try:
        os.write(fd, data)
    except OSError:
        pass  # it does not read
    finally:
        os.close(fd)


def _read(fd: int, timeout: float | None) -> tuple[str, bool]:
    end = time.monotonic() + timeout if timeout else None
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    output = b""
    while True:
        left = None if end is None else max(0, int((end - time.monotonic()) * 1000))
        if not poll.poll(left):
            return output.decode(errors="replace").strip(), False
        data = os.read(fd, 4096)
        if not data:
            return output.decode(errors="replace").strip(), True
        output = (output + data)[-_OUTPUT:]
