"""What may come next on a command line: the grammar walked as the parser walks it.

The first line printed is a kind (``words``, ``nospace``, or what the shell itself completes:
``files``, ``directories``, ``commands``, ``variables``), the others are candidates.
"""

from __future__ import annotations

from kata.cli import grammar
from kata.cli.grammar import FLAG, ONE, OPTIONAL, REST, Argument, Option, Verb

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from kata.cli.parse import Options

    Candidates = list[tuple[str, str]]  # words with descriptions

_SHELL_KINDS = {
    "file": "files", "directory": "directories", "command": "commands", "environment": "variables",
}  # fmt: skip
_FIXED = {
    "capability": (
        "ALL", "AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID",
        "IPC_LOCK", "KILL", "MKNOD", "NET_ADMIN", "NET_BIND_SERVICE", "NET_RAW", "SETFCAP",
        "SETGID", "SETPCAP", "SETUID", "SYS_ADMIN", "SYS_CHROOT", "SYS_NICE", "SYS_PTRACE",
        "SYS_RESOURCE", "SYS_TIME",
    ),
    "signal": ("HUP", "INT", "QUIT", "KILL", "USR1", "USR2", "TERM", "CONT", "STOP", "WINCH"),
    "ulimit": (
        "core=", "cpu=", "data=", "fsize=", "memlock=", "nofile=", "nproc=", "rss=", "stack=",
    ),
    "security": ("no-new-privileges", "seccomp=unconfined", "seccomp="),
    "filter": ("id=", "name=", "status=", "label=", "exited="),
}  # fmt: skip


def run(options: Options) -> int:
    """Print the kind and the candidates for the words, of which the last is being typed."""
    words = list(options.words)
    cut = 0
    if options.shell == "bash":
        current, line = words
        words = split(line)[1:] or [""]
        cut = len(words[-1]) - len(current) if words[-1].endswith(current) else 0
    kind, found = complete(words, Host(options))
    print(kind)
    typed = words[-1]
    for word, text in found:
        if not word.startswith(typed):
            continue
        if options.shell == "zsh":
            escaped = word.replace(":", "\\:")
            print(f"{escaped}:{text}" if text else escaped)
        else:
            print(word[cut:])
    return 0


def split(line: str) -> list[str]:
    """The words of a line, the last one empty after a space; a quote may still be open."""
    from shlex import split as shell_split

    for closing in ("", '"', "'"):
        try:
            words = shell_split(line + closing)
        except ValueError:
            continue
        return [*words, ""] if line[-1:].isspace() and not closing else words
    return line.split()


def complete(words: Sequence[str], host: Host) -> tuple[str, Candidates]:
    """The kind and the candidates for the last of the words (not yet compared with it)."""
    *before, current = words
    known = grammar.global_options()
    index = _skip_options(before, known)
    if index > len(before):
        return _value(_pending(before, known), current, host)
    if index == len(before):
        return _first(current, known, host)
    name, index = before[index], index + 1
    if name in grammar.GROUPS:
        if index == len(before):
            return "words", _members(name)
        name, index = f"{name} {before[index]}", index + 1
    name = grammar.ALIASES.get(name, name)
    if not grammar.has(name):
        return "words", []
    return _within(grammar.verb(name), before[index:], current, host)


class Host:
    """Asks this host for names; whatever fails has no candidates."""

    def __init__(self, options: Options) -> None:
        self._options = options

    def names(self, completer: str) -> Candidates:
        """Candidates for a completer's name."""
        sources: dict[str, Callable[[], Candidates]] = {
            "container": self._containers,
            "running": lambda: self._containers(running=True),
            "image": self._images,
            "guest": self._guests,
            "verb": _verbs,
        }
        try:
            return sources[completer]() if completer in sources else []
        except Exception:  # completion never says what went wrong, it only helps less
            return []

    def _containers(self, *, running: bool = False) -> Candidates:
        from kata.cli.context import open_store

        states = open_store(self._options).list()
        return [(s.name, s.image) for s in states if not running or s.status == "running"]

    def _images(self) -> Candidates:
        from kata.cli.image import names

        return [(name, "") for name in names(self._options)]

    def _guests(self) -> Candidates:
        from kata.cli.guest import identifiers

        return [(name, "") for name in identifiers(self._options)]


def _first(current: str, known: Sequence[Option], host: Host) -> tuple[str, Candidates]:
    if current.startswith("-"):
        return _option(current, known, host, ("--version", "print the version"))
    return "words", _verbs()


def _within(
    verb: Verb, before: Sequence[str], current: str, host: Host
) -> tuple[str, Candidates]:
    """Candidates after a verb and the words before the last."""
    options = (*verb.options, *grammar.global_options())
    arguments: list[str] = []
    index, ended = 0, False
    while index < len(before):
        taken = 0 if ended else _skip_options(before[index:], options, once=True)
        if taken and index + taken > len(before):
            return _value(_pending(before[index:], options), current, host)
        if not taken:
            if before[index] == "--" and not ended:
                ended = True
            else:
                arguments.append(before[index])
                ended = ended or verb.verbatim
        index += taken or 1
    if current.startswith("-") and not ended:
        return _option(current, verb.options, host, ("--help", "print this help"))
    rootfs = any(word == "--rootfs" or word.startswith("--rootfs=") for word in before)
    argument = _next_argument(verb, len(arguments), skip="rootfs" if rootfs else "")
    if argument is None:
        return "words", []
    if argument.count == REST:
        return "commands", []
    if argument.choices:
        return "words", [(choice, "") for choice in argument.choices]
    if argument.completer in _SHELL_KINDS:
        return _SHELL_KINDS[argument.completer], []
    found = host.names(argument.completer)
    return "words", [(word, text) for word, text in found if word not in arguments]


def _next_argument(verb: Verb, given: int, *, skip: str) -> Argument | None:
    for argument in verb.arguments:
        if argument.unless and argument.unless == skip:
            continue
        if argument.count not in (ONE, OPTIONAL) or given == 0:
            return argument
        given -= 1
    return None


def _skip_options(words: Sequence[str], known: Iterable[Option], *, once: bool = False) -> int:
    """The index after the leading options (or the first); past the end if a value is missing."""
    long = {f"--{o.name}": o for o in known}
    short = {o.short: o for o in known if o.short}
    index = 0
    while index < len(words) and words[index].startswith("-") and words[index] not in ("-", "--"):
        word = words[index]
        index += 1
        if word.startswith("--"):
            option = None if "=" in word else long.get(word)
        else:
            option = _last_short(word, short)
        if option is not None and option.kind != FLAG:
            index += 1
        if once:
            break
    return index


def _last_short(word: str, short: dict[str, Option]) -> Option | None:
    """The option of ``-itv`` that takes the next word, if one does."""
    for position, letter in enumerate(word[1:], 2):
        option = short.get(letter)
        if option is None or option.kind != FLAG:
            return option if position == len(word) else None
    return None


def _pending(words: Sequence[str], known: Iterable[Option]) -> Option:
    """The option at the end of the words, whose value is being typed."""
    known = list(known)
    word = words[-1]
    if word.startswith("--"):
        return next(o for o in known if f"--{o.name}" == word)
    option = _last_short(word, {o.short: o for o in known if o.short})
    assert option is not None
    return option


def _option(
    current: str, options: Sequence[Option], host: Host, more: tuple[str, str]
) -> tuple[str, Candidates]:
    name, equals, value = current.partition("=")
    if equals:
        option = next((o for o in options if f"--{o.name}" == name), None)
        if option is None or option.kind == FLAG:
            return "words", []
        kind, found = _value(option, value, host)
        return kind, [(f"{name}={word}", text) for word, text in found]
    return "words", [(f"--{o.name}", o.help) for o in options] + [more]


def _value(option: Option, current: str, host: Host) -> tuple[str, Candidates]:
    if option.choices:
        return "words", [(choice, "") for choice in option.choices]
    if option.completer in _SHELL_KINDS:
        return _SHELL_KINDS[option.completer], []
    found = [(word, "") for word in _FIXED.get(option.completer, ())]
    matching = [word for word, _ in found if word.startswith(current)]
    open_ended = bool(matching) and all(word.endswith("=") for word in matching)
    return "nospace" if open_ended else "words", found or host.names(option.completer)


def _verbs() -> Candidates:
    single = [(n, grammar.verb(n).help) for n in grammar.names() if " " not in n]
    return single + list(grammar.GROUPS.items())


def _members(group: str) -> Candidates:
    verbs = [grammar.verb(n) for n in grammar.names() if n.startswith(f"{group} ")]
    return [(verb.name.split()[1], verb.help) for verb in verbs]
