"""Values read from and shown to people: numbers, times, sizes, tables, candidates."""

from __future__ import annotations

import pytest

from kata.cli import check, complete, numbers, output, text
from kata.cli.parse import UsageError
from kata.runtime.check import Check

S = 1_000_000_000


@pytest.mark.parametrize(
    ("ns", "shown"),
    [
        (-5, "less than a second"), (S, "1 second"), (59 * S, "59 seconds"), (60 * S, "1 minute"),
        (90 * S, "1 minute"), (3600 * S, "60 minutes"), (7200 * S, "2 hours"),
        (86400 * S, "24 hours"), (3 * 86400 * S, "3 days"), (800 * 86400 * S, "2 years"),
    ],
)  # fmt: skip
def test_durations(ns, shown):
    """The largest unit of which there are two, so that nothing is rounded by half."""
    assert text.duration(ns) == shown


@pytest.mark.parametrize(
    ("count", "shown"),
    [(0, "0B"), (999, "999B"), (1500, "1.5kB"), (4_214_000, "4.21MB"), (5 * 10**12, "5000GB")],
)
def test_sizes(count, shown):
    """Decimal units, three digits."""
    assert text.size(count) == shown


def test_foreign_text_drives_no_terminal():
    """Escapes and newlines in names come out as visible text."""
    assert text.one_line("a\x1b[31m\nb\tc\u202e") == "a\\x1b[31m b  c\\u202e"
    assert text.printable("häßlich") == "häßlich"


def test_shorten():
    """A long text ends in an ellipsis, within the width."""
    assert (text.shorten("abcdef", 4), text.shorten("abcd", 4)) == ("abc…", "abcd")


@pytest.mark.parametrize(
    ("given", "ns"),
    [
        ("10m", 1000 * S - 600 * S), ("1h30m", 1000 * S - 5400 * S), ("500ms", 1000 * S - S // 2),
        ("12.5", 12 * S + S // 2), ("7", 7 * S), ("1970-01-01T00:00:09Z", 9 * S),
        ("1970-01-01T01:00:09.25+01:00", 9 * S + S // 4),
    ],
)  # fmt: skip
def test_instants(given, ns):
    """A time, seconds since the epoch, or how long ago."""
    assert numbers.instant(given, "--since", 1000 * S) == ns


@pytest.mark.parametrize("given", ["", "yesterday", "10x", "m", "h10", "1e999", "-5"])
def test_bad_instants(given):
    """Anything else is refused."""
    with pytest.raises(UsageError):
        numbers.instant(given, "--since", 0)


def test_bad_seconds():
    """Negative and fractional seconds are refused."""
    for given in ("-1", "1.5", "", "x", "1" * 20):
        with pytest.raises(UsageError):
            numbers.seconds(given, "--time")


def test_tables_are_aligned():
    """Columns are as wide as their widest cell; nothing trails."""
    lines = output.plain_table(("A", "LONG"), [("xxx", "y"), ("z", "")])
    assert lines == ["A     LONG", "xxx   y", "z"]


def test_nested_facts_are_flat_in_a_table():
    """Names are joined by dots; nothing and truth are words."""
    facts = {"a": {"b": None, "c": True}, "d": ["x", "y"], "e": {}, "f": [{"g": 1}]}
    assert output.flatten(facts) == [
        ("a.b", "-"), ("a.c", "yes"), ("d", "x y"), ("e", "-"), ("f", '[{"g": 1}]'),
    ]  # fmt: skip


class Host:
    """Names as a host would have them."""

    def names(self, completer):
        """A candidate for each completer."""
        return [(f"a-{completer}", "")] if completer else []


@pytest.mark.parametrize(
    ("words", "kind", "some"),
    [
        ([""], "words", "run"),
        (["im"], "words", "image"),
        (["--"], "words", "--root"),
        (["--root", ""], "directories", None),
        (["--root", "/x", ""], "words", "ps"),
        (["image", ""], "words", "pull"),
        (["image", "rm", ""], "words", "a-image"),
        (["rmi", ""], "words", "a-image"),
        (["rm", "-f", ""], "words", "a-container"),
        (["exec", ""], "words", "a-running"),
        (["exec", "web", ""], "commands", None),
        (["run", "--na"], "words", "--name"),
        (["run", "--name", ""], "words", None),
        (["run", "-e", ""], "variables", None),
        (["run", "-ite", ""], "variables", None),
        (["run", "-it", ""], "words", "a-image"),
        (["run", "--rootfs", "/r", ""], "commands", None),
        (["run", "--rootfs", ""], "directories", None),
        (["run", "image", "-"], "commands", None),
        (["run", "--pull="], "words", "--pull=always"),
        (["run", "--ulimit", "no"], "nospace", "nofile="),
        (["run", "--cap-add", ""], "words", "SYS_ADMIN"),
        (["run", "--", ""], "words", "a-image"),
        (["completion", ""], "words", "zsh"),
        (["logs", "a-container", ""], "words", None),
        (["nosuch", ""], "words", None),
        (["help", "im"], "words", "a-verb"),
    ],
)
def test_candidates(words, kind, some):
    """Completion walks the command line as the parser does."""
    found_kind, found = complete.complete(words, Host())
    assert found_kind == kind
    found_words = [word for word, _ in found]
    assert some in found_words if some else not found_words


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("kata run ", ["kata", "run", ""]), ("kata ru", ["kata", "ru"]),
        ('kata run "a b', ["kata", "run", "a b"]), ("kata 'x ", ["kata", "x "]),
        ("", []),
    ],
)  # fmt: skip
def test_lines_are_split_as_a_shell_does(line, words):
    """Also while a quote is still open."""
    assert complete.split(line) == words


def test_completion_prints_for_the_shell(capsys):
    """Bash gets what follows its own word, zsh whole words with descriptions."""
    from kata.cli.main import main

    assert main(["__complete", "bash", "--", "al", "kata run --pull=al"]) == 0
    assert capsys.readouterr().out == "words\nalways\n"
    assert main(["__complete", "zsh", "--", "image", "pu"]) == 0
    assert capsys.readouterr().out == "words\npull:Fetch images from a registry\n"


def test_checks_are_told_with_what_mends_them():
    """A check that failed shows why, and the command."""
    bad = Check("qemu", ok=False, found="7.0", why="older than 7.2", mend="apt-get install q")
    good = Check("root", ok=True, found="running as root")
    lesser = Check("tun", ok=False, why="missing", required=False)
    assert check.lines(good, 6) == ["ok       root    running as root"]
    assert check.lines(bad, 6) == [
        "MISSING  qemu    7.0",
        "                 older than 7.2",
        "                 mend it: apt-get install q",
    ]
    assert check.summary([good]) == "containers can run on this host"
    assert check.summary([good, lesser]).endswith("with less than all: tun")
    assert check.summary([bad, lesser]) == "no container can run on this host: qemu"
