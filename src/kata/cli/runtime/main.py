"""``kata-runtime``: find the verb, read its flags as runc does, run it, tell errors as runc does.

The rule: what an engine reads (the log file's lines, standard error, exit codes) is runc's.
"""

from __future__ import annotations

import gc
import os
import sys

from kata.cli.parse import Options, Scanner, UsageError
from kata.cli.runtime import grammar
from kata.errors import KataError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import NoReturn

PROGRAM = "kata-runtime"
FAILED, EXEC_FAILED = 1, 255


class GoScanner(Scanner):
    """Flags as Go's command lines take them: ``-flag`` is ``--flag``, and they come first."""

    def take(self, words: Sequence[str], index: int) -> int:
        """Take the flag at ``index``; gives the index after it."""
        word = words[index]
        name = word.lstrip("-").partition("=")[0]
        if not word.startswith("--") and name in self.long:
            words = [*words[:index], f"-{word}", *words[index + 1 :]]
        elif word.startswith("--") and len(name) == 1 and name in self.short:
            words = [*words[:index], word[1:], *words[index + 1 :]]
        return super().take(words, index)


def enter(argv: Sequence[str]) -> NoReturn:
    """Run the program to its end."""
    gc.disable()  # a command makes few cycles and ends soon; a supervisor switches it on again
    os._exit(main(argv))


def main(argv: Sequence[str], failure: KataError | None = None) -> int:
    """Run a command line; gives the exit code. With ``failure`` that is what came of it already."""
    options = Options()
    try:
        code = _run(argv, options, failure)
        sys.stdout.flush()
        return code
    except KataError as error:
        from kata.cli.runtime.report import report

        return report(error, options)
    except BrokenPipeError:
        return FAILED
    except Exception as error:
        from kata.cli.runtime.report import report_unexpected

        return report_unexpected(error, options)


def _run(argv: Sequence[str], options: Options, failure: KataError | None) -> int:
    words = list(argv)
    scanner = GoScanner(PROGRAM, grammar.options(grammar.GLOBALS), options)
    index = 0
    while index < len(words) and words[index].startswith("-") and words[index] != "-":
        if words[index] in ("--version", "-version", "-v"):
            return _help("version")
        if words[index] in ("-h", "-help", "--help"):
            return _help("")
        index = scanner.take(words, index)
    words = words[index:]
    if not words or words[0] == "help":
        return _help("")
    verb = words[0]
    if verb not in grammar.VERBS:
        raise UsageError(f'No help topic for "{verb}"', hint=f"{PROGRAM} --help", exit_code=3)
    module, rows, least, most, _, _ = grammar.VERBS[verb]
    options.verb = verb
    scanner = GoScanner(f"{PROGRAM} {verb}", grammar.options(rows), options)
    index = 1
    while index < len(words) and words[index].startswith("-") and words[index] != "-":
        if words[index] == "--":
            index += 1
            break
        if words[index] in ("-h", "-help", "--help"):
            return _help(verb)
        index = scanner.take(words, index)
    options.__dict__["words"] = words[index:]
    _check_count(verb, len(words) - index, least, most)
    if failure is not None:
        raise failure
    code: int = __import__(f"kata.cli.runtime.{module}", fromlist=("run",)).run(options)
    return code


def _check_count(verb: str, count: int, least: int, most: int) -> None:
    if count < least:
        wanted = "exactly" if least == most else "a minimum of"
    elif 0 <= most < count:
        wanted = "exactly" if least == most else "a maximum of"
    else:
        return
    number = most if count > most >= 0 else least
    plural = "" if number == 1 else "s"
    raise UsageError(
        f'{PROGRAM}: "{verb}" requires {wanted} {number} argument{plural}', exit_code=FAILED,
        hint=f"{PROGRAM} {verb} --help",
    )  # fmt: skip


def _help(what: str) -> int:
    """The pages of the help are imported only for whoever reads them."""
    from kata.cli.runtime import help as pages

    if what == "version":
        return pages.version()
    return pages.of_verb(what) if what else pages.overview()
