"""Errors as engines read them: a line in the log, in its format, and one on standard error."""

from __future__ import annotations

import os
import sys
import time

from kata.cli.parse import UsageError
from kata.cli.report import render
from kata.errors import GuestError, KataError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kata.cli.parse import Options

_PREFIXED = {"create": "create failed", "run": "run failed", "exec": "exec failed"}
_FAILED, _EXEC_FAILED = 1, 255


def report(error: KataError, options: Options) -> int:
    """Write an error where it belongs; gives the exit code."""
    verb = options.__dict__.get("verb", "")
    text = str(error)
    if verb in _PREFIXED and not isinstance(error, UsageError):
        text = f"{_PREFIXED[verb]}: {_as_runc(error)}"
        if verb != "exec":
            text = f"kata-runtime {text}"
    if error.hint:
        text = f"{text} (hint: {error.hint})"
    log("error", text, options)
    if options.__dict__.get("log"):
        print(text, file=sys.stderr)
    console = render(error).split("\n  last lines", 1)[1:]
    if console:
        print(f"  last lines{console[0]}", file=sys.stderr)
    if options.__dict__.get("debug"):
        from traceback import format_exception

        print("".join(format_exception(error)), file=sys.stderr, end="")
    if isinstance(error, UsageError) and error.exit_code != KataError.exit_code:
        return error.exit_code
    return _EXEC_FAILED if verb == "exec" else _FAILED


def _as_runc(error: KataError) -> str:
    """The error in runc's words where engines look for them."""
    if error.exit_code in (126, 127) or isinstance(error, GuestError):
        return f"unable to start container process: {error}"
    return str(error)


def report_unexpected(error: Exception, options: Options) -> int:
    """A fault of our own."""
    failure = KataError(
        f"internal error: {type(error).__name__}: {error}", hint="please report this"
    )
    failure.__traceback__ = error.__traceback__
    return report(failure, options)


def log(level: str, text: str, options: Options) -> None:
    """Write a line to the log; to standard error where none was asked for."""
    path = options.__dict__.get("log") or ""
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    if options.__dict__.get("log_format") == "json":
        from kata.wire.quickjson import dumps

        line = dumps({"level": level, "msg": text, "time": stamp})
    else:
        quoted = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
        line = f'time="{stamp}" level={level} msg="{quoted}"'
    _write(path, line)


def _write(path: str, line: str) -> None:
    if not path:
        print(line, file=sys.stderr)
        return
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
    except OSError as error:
        print(f'kata-runtime: cannot write the log "{path}": {error.strerror}', file=sys.stderr)
        return
    os.write(fd, f"{line}\n".encode())
    os.close(fd)
