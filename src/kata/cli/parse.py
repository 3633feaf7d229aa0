"""From words to a plain object of options, by the tables of ``grammar``; as Docker reads them.

Values stay text (or None, or a list of texts): what they mean is for the verb to find out. In
``run`` and ``exec`` the options end at the first argument; elsewhere they may stand anywhere.
"""

from __future__ import annotations

from kata.cli.grammar import ANY, FLAG, LIST, ONE, OPTIONAL, REST, SOME, Option, Verb
from kata.errors import InvalidInput

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any

_TRUE = frozenset(("1", "t", "true", "T", "True", "TRUE"))
_FALSE = frozenset(("0", "f", "false", "F", "False", "FALSE"))


class UsageError(InvalidInput):
    """The words on the command line make no sense.

    Docker ends with 125 for a bad option, and with 1 for a bad number of arguments.
    """

    def __init__(self, what: str, *, why: str = "", hint: str = "", exit_code: int = 125) -> None:
        super().__init__(what, why=why, hint=hint)
        self.exit_code = exit_code


class Options:
    """The options of one command line, one attribute each.

    ``help`` and ``version`` if those were asked for; ``verb`` is the verb's full name, ``failure``
    the exit code of its errors.
    """

    help = False
    version = False
    verb = ""
    failure = 125

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """Any option's value."""


class Scanner:
    """Reads options of one set from a list of words into an ``Options``."""

    def __init__(self, command: str, options: Iterable[Option], into: Options) -> None:
        self.command = command
        self.into = into
        self.long: dict[str, Option] = {}
        self.short: dict[str, Option] = {}
        for option in options:
            self.long[option.name] = option
            if option.short:
                self.short[option.short] = option
            if option.attribute not in into.__dict__:
                into.__dict__[option.attribute] = _initial(option)

    def take(self, words: Sequence[str], index: int) -> int:
        """Take the option at ``index``; gives the index after it. Raises ``UsageError``."""
        word = words[index]
        if word.startswith("--"):
            return self._take_long(words, index)
        return self._take_short(words, index)

    def _take_long(self, words: Sequence[str], index: int) -> int:
        name, equals, value = words[index][2:].partition("=")
        option = self.long.get(name)
        if option is None:
            if name == "help":
                self.into.help = True
                return index + 1
            raise self._unknown(f"--{name}")
        if option.kind == FLAG:
            self._set_flag(option, value if equals else "true")
            return index + 1
        if equals:
            self._set(option, value)
            return index + 1
        return self._take_next(option, f"--{name}", words, index)

    def _take_short(self, words: Sequence[str], index: int) -> int:
        letters = words[index][1:]
        while letters:
            letter, letters = letters[0], letters[1:]
            option = self.short.get(letter)
            if option is None:
                if letter == "h":
                    self.into.help = True
                    continue
                raise self._unknown(f"-{letter}", words[index])
            if option.kind != FLAG:
                if not letters:
                    return self._take_next(option, f"-{letter}", words, index)
                self._set(option, letters.removeprefix("="))
                break
            if letters.startswith("="):
                self._set_flag(option, letters[1:])
                break
            self._set_flag(option, "true")
        return index + 1

    def _take_next(self, option: Option, spelled: str, words: Sequence[str], index: int) -> int:
        if index + 1 >= len(words):
            raise UsageError(
                f"option {spelled} needs a value",
                why=f"{spelled} {option.metavar}",
                hint=f"{self.command} --help",
            )
        self._set(option, words[index + 1])
        return index + 2

    def _set_flag(self, option: Option, value: str) -> None:
        if value not in _TRUE and value not in _FALSE:
            raise UsageError(
                f'invalid value "{value}" for --{option.name}', why='must be "true" or "false"'
            )
        self.into.__dict__[option.attribute] = value in _TRUE

    def _set(self, option: Option, value: str) -> None:
        if option.choices and value not in option.choices:
            raise UsageError(
                f'invalid value "{value}" for --{option.name}',
                why=must_be(option.choices),
                hint=f"{self.command} --help",
            )
        if option.kind == LIST:
            self.into.__dict__[option.attribute].append(value)
        else:
            self.into.__dict__[option.attribute] = value

    def _unknown(self, spelled: str, word: str = "") -> UsageError:
        from kata.cli.suggest import nearest

        within = f' in "{word}"' if word not in ("", spelled) else ""
        name = word.lstrip("-").partition("=")[0] if within else spelled[2:]
        near = nearest(name, [*self.long, "help"]) if len(name) > 1 else ""
        return UsageError(
            f'unknown option "{spelled}"{within}',
            why=f"did you mean --{near}?" if near else "",
            hint=f"{self.command} --help",
        )


def parse(verb: Verb, words: Sequence[str], into: Options, known: Iterable[Option]) -> Options:
    """Read the words after a verb; ``known`` are options that every verb takes.

    Raises ``UsageError``. With ``help`` set in the result, nothing else in it counts.
    """
    scanner = Scanner(f"kata {verb.name}", (*known, *verb.options), into)
    for argument in verb.arguments:
        many = argument.count in (SOME, ANY, REST)
        into.__dict__[argument.name] = [] if many else None
    arguments: list[str] = []
    index = 0
    while index < len(words):
        word = words[index]
        if word == "--":
            arguments += words[index + 1 :]
            break
        if word.startswith("-") and word != "-":
            index = scanner.take(words, index)
            if into.help:
                return into
            continue
        if verb.verbatim:
            arguments += words[index:]
            break
        arguments.append(word)
        index += 1
    _bind(verb, arguments, into)
    return into


def must_be(choices: Sequence[str]) -> str:
    """``must be "a", "b" or "c"``."""
    quoted = [f'"{choice}"' for choice in choices]
    return "must be " + " or ".join(filter(None, (", ".join(quoted[:-1]), quoted[-1])))


def _initial(option: Option) -> Any:
    if option.kind == FLAG:
        return False
    return [] if option.kind == LIST else None


def _bind(verb: Verb, words: list[str], into: Options) -> None:
    """Give the words to the verb's arguments, in order."""
    for argument in verb.arguments:
        if argument.unless and getattr(into, argument.unless) is not None:
            continue
        if argument.count in (SOME, ANY, REST):
            if argument.count == SOME and not words:
                raise _missing(verb, argument.metavar)
            if argument.count == REST and into.__dict__.get(verb.arguments[0].name) is not None:
                words = words[1:] if words[:1] == ["--"] else words
            into.__dict__[argument.name] = words
            words = []
        elif words:
            value, words = words[0], words[1:]
            if argument.choices and value not in argument.choices:
                raise UsageError(
                    f'invalid {argument.metavar} "{value}"', why=must_be(argument.choices)
                )
            into.__dict__[argument.name] = value
        elif argument.count == ONE:
            raise _missing(verb, argument.metavar)
        else:
            assert argument.count == OPTIONAL
    if words:
        raise UsageError(
            f'"kata {verb.name}" does not take the argument "{words[0]}"',
            hint=f"kata {verb.name} --help",
            exit_code=verb.failure,
        )


def _missing(verb: Verb, metavar: str) -> UsageError:
    return UsageError(
        f'"kata {verb.name}" needs an argument',
        why=f"{metavar} is missing",
        hint=f"kata {verb.name} --help",
        exit_code=verb.failure,
    )
