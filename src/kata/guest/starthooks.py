"""The startContainer hooks: programs of the container, run in it just before its process is.

They have the process's confinement. Source: runtime-spec config.md "StartContainer Hooks".
"""

from __future__ import annotations

import os
import select

from kata.errors import GuestError
from kata.wire.quickjson import dumps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    Hook = dict[str, Any]

_FAILED = 127


def run(hooks: Iterable[Hook], state: dict[str, Any]) -> None:
    """Run each to its end. Raises ``GuestError`` for the first that fails."""
    text = dumps({**state, "pid": os.getpid()}).encode()
    for index, hook in enumerate(hooks):
        why = _run(hook, text)
        if why:
            raise GuestError(f"error running startContainer hook #{index}", why=why)


def _run(hook: Hook, state: bytes) -> str:
    """What went wrong, empty if nothing."""
    given, stdin = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        try:
            os.dup2(given, 0)
            environment = dict(e.partition("=")[::2] for e in hook.get("env") or ())
            os.execve(hook["path"], hook.get("args") or [hook["path"]], environment)
        finally:
            os._exit(_FAILED)
    os.close(given)
    try:
        os.write(stdin, state)
    except OSError:
        pass  # it does not read
    os.close(stdin)
    timeout = hook.get("timeout")
    if timeout and not _ends(pid, float(timeout)):
        os.kill(pid, 9)
        os.waitpid(pid, 0)
        return f"{hook['path']}: not done after {timeout} s"
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if code:
        how = f"exit status {code}" if code > 0 else f"killed by signal {-code}"
        return f"{hook['path']}: {how}"
    return ""


def _ends(pid: int, seconds: float) -> bool:
    pidfd = os.pidfd_open(pid)
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    try:
        return bool(poll.poll(seconds * 1000))
    finally:
        os.close(pidfd)
