"""The way in: find the verb, read its options, run it, and turn what went wrong into a message.

Only the verb's own module is imported. ``main`` gives the exit code; ``enter`` is for the
programs and ends the process at once, without the interpreter's slow farewell.
"""

from __future__ import annotations

import gc
import os
import sys

from kata.cli import grammar
from kata.cli.parse import Options, Scanner, parse
from kata.errors import KataError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import NoReturn

INTERRUPTED = 130
BROKEN_PIPE = 141


def enter(
    argv: Sequence[str], program: str = "kata", failure: KataError | None = None
) -> NoReturn:
    """Run a program to its end: ``argv`` without the program's name.

    With ``failure`` that is what came of the verb already.
    """
    gc.disable()  # looking for cycles in what was just imported is a tenth of a start
    _open_standard_streams()
    code = main(argv, program, failure)
    os._exit(code)


def _open_standard_streams() -> None:
    """Closed ones (``>&-``) lead to nowhere: else the next file opened would be in their place."""
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:  # what is opened gets the lowest free number, this one
            os.set_inheritable(os.open("/dev/null", os.O_RDWR), True)
    if sys.stdout is None:
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)
    if sys.stderr is None:
        sys.stderr = open(2, "w", encoding="utf-8", closefd=False)


def main(
    argv: Sequence[str], program: str = "kata", failure: KataError | None = None
) -> int:
    """Run a command line; gives the exit code. Everything written has been flushed."""
    if program == "kata-runtime":
        from kata.cli.runtime.main import main as runtime

        return _flush(runtime(argv))
    options = Options()
    try:
        return _flush(_run(argv, options, failure))
    except KataError as error:
        from kata.cli.report import report

        return _flush(report(error, options))
    except KeyboardInterrupt:
        return _flush(INTERRUPTED)
    except BrokenPipeError:
        return _flush(BROKEN_PIPE)
    except Exception as error:
        from kata.cli.report import report_unexpected

        return _flush(report_unexpected(error, options))


def _run(argv: Sequence[str], options: Options, failure: KataError | None) -> int:
    known = grammar.global_options()
    scanner = Scanner("kata", known, options)
    index = 0
    while index < len(argv) and argv[index].startswith("-") and not options.help:
        if argv[index] in ("--version", "-v"):
            options.version = True
            index += 1
        else:
            index = scanner.take(argv, index)
    words = argv[index:]
    if options.help or (not words and not options.version):
        from kata.cli.help import show_overview

        return show_overview()
    if options.version:
        from kata.cli.version import show_short

        return show_short()
    name, words = _find(words)
    verb = _parse_verb(name, words, options, known)
    if failure is not None:
        raise failure
    return _run_verb(verb, options)


def _parse_verb(
    name: str, words: Sequence[str], options: Options, known: tuple[grammar.Option, ...]
) -> grammar.Verb:
    verb = grammar.verb(name)
    options.failure = verb.failure
    parse(verb, words, options, known)
    return verb


def _run_verb(verb: grammar.Verb, options: Options) -> int:
    if options.help:
        from kata.cli.help import show_brief

        return show_brief(verb)
    options.verb = verb.name
    if verb.name != "run":  # its supervisor does it
        gc.enable()
    code: int = __import__(verb.module, fromlist=("run",)).run(options)
    return code


def _find(words: Sequence[str]) -> tuple[str, Sequence[str]]:
    """The verb's full name and the words after it; raises ``UsageError``."""
    first = words[0]
    if first in grammar.GROUPS:
        if len(words) == 1 or words[1] in ("--help", "-h", "help"):
            return "help", [first]
        first = f"{first} {words[1]}"
        words = words[1:]
    name = grammar.ALIASES.get(first, first)
    if grammar.has(name):
        return name, words[1:]
    from kata.cli.unknown import unknown_verb

    raise unknown_verb(first)


def _flush(code: int) -> int:
    """Flush what was printed; a reader that went away is no news to anyone."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BrokenPipeError:
            _discard(stream.fileno())
            code = code or BROKEN_PIPE
        except OSError as error:
            _discard(stream.fileno())
            if code == 0:
                code = 1
                _complain(f"kata: cannot write the output: {error.strerror}\n")
    return code


def _complain(text: str) -> None:
    try:
        os.write(2, text.encode())
    except OSError:
        pass  # of a terminal that was closed


def _discard(fd: int) -> None:
    """Let what cannot be written go to nowhere, so that the interpreter does not try again."""
    null = os.open("/dev/null", os.O_WRONLY | os.O_CLOEXEC)
    os.dup2(null, fd)
    os.close(null)
