"""Errors as people read them: what, why, and what to do; imported only when there is one."""

from __future__ import annotations

import os
import sys

from kata.cli.parse import Options, UsageError
from kata.cli.text import one_line, printable
from kata.errors import HypervisorError, KataError

CONSOLE_LINES = 20


def report(error: KataError, options: Options) -> int:
    """Print an error; gives the exit code: the error's own, or the verb's for a general one."""
    print(render(error), file=sys.stderr)
    if debugging(options):
        print(_traceback(error), file=sys.stderr, end="")
    if error.exit_code != KataError.exit_code or isinstance(error, UsageError):
        return error.exit_code
    return options.failure


def render(error: KataError) -> str:
    """``kata: what: why``, the guest's last words if there are any, and the hint."""
    lines = [f"kata: {one_line(str(error))}"]
    if isinstance(error, HypervisorError) and error.console.strip():
        tail = error.console.strip().splitlines()[-CONSOLE_LINES:]
        lines.append("  last lines of the guest's console:")
        lines += [f"    {printable(line)}" for line in tail]
    if error.hint:
        lines.append(f"  hint: {one_line(error.hint)}")
    return "\n".join(lines)


def report_unexpected(error: Exception, options: Options) -> int:
    """Print an error of our own making, and keep its traceback."""
    print(f"kata: internal error: {one_line(_describe(error))}", file=sys.stderr)
    if debugging(options):
        print(_traceback(error), file=sys.stderr, end="")
        return KataError.exit_code
    path = _save(_traceback(error))
    if path:
        print(f"  hint: please report this; the traceback is in {path}", file=sys.stderr)
    else:
        print("  hint: run it again with kata --debug for a traceback", file=sys.stderr)
    return KataError.exit_code


def debugging(options: Options) -> bool:
    """Whether the user wants to see tracebacks; the error may be in the global options."""
    return bool(options.__dict__.get("debug"))


def _describe(error: Exception) -> str:
    text = str(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _traceback(error: Exception) -> str:
    from traceback import format_exception

    return "".join(format_exception(error))


def _save(text: str) -> str:
    """The file that the text went to, readable by its owner alone; "" if none could be made."""
    from time import time_ns

    directory = os.environ.get("TMPDIR", "/tmp")
    path = f"{directory}/kata-traceback-{os.getpid()}-{time_ns()}.txt"
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(fd, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(f"kata {' '.join(sys.argv[1:2])}\n{text}")
    except OSError:
        return ""
    return path

