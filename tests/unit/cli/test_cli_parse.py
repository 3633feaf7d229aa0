"""Command lines are read as Docker reads them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kata.cli import grammar
from kata.cli.parse import Options, UsageError, parse


def read(line, words=None):
    name, *rest = line.split() if words is None else [line, *words]
    return parse(grammar.verb(name), rest, Options(), grammar.global_options())


def test_options_end_at_the_image():
    """What follows IMAGE belongs to the command, whatever it looks like."""
    options = read("run --rm -it debian ls -la --rm -e X --help")
    assert (options.rm, options.interactive, options.tty) == (True, True, True)
    assert options.image == "debian"
    assert options.command == ["ls", "-la", "--rm", "-e", "X", "--help"]
    assert options.env == []


@pytest.mark.parametrize(
    "line",
    ["-e A=B", "-eA=B", "-e=A=B", "--env A=B", "--env=A=B", "-ite A=B", "-iteA=B", "-te=A=B"],
)
def test_the_spellings_of_a_value(line):
    """All of pflag's ways to write a value are understood."""
    assert read(f"run {line} image").env == ["A=B"]


@pytest.mark.parametrize(
    ("word", "value"),
    [("--rm", True), ("--rm=true", True), ("--rm=false", False), ("--rm=0", False), ("-t=1", None)],
)
def test_flags_may_have_a_value(word, value):
    """``--rm=false`` switches a flag off."""
    options = read(f"run {word} image")
    assert options.rm == bool(value)
    assert options.tty == (value is None)


def test_the_last_value_wins_and_lists_keep_all():
    """Docker's rule for options that are given twice."""
    options = read("run --name a --name b -v a:b -v c:d image")
    assert options.name == "b"
    assert options.volume == ["a:b", "c:d"]


def test_what_is_not_given():
    """Flags are false, values None, lists empty; an empty value is not None."""
    options = read("run --entrypoint= image")
    assert options.entrypoint == ""
    assert (options.user, options.rm, options.cap_add, options.command) == (None, False, [], [])


@pytest.mark.parametrize(
    ("words", "image", "command"),
    [
        (["image", "--", "ls", "--"], "image", ["ls", "--"]),
        (["--", "image", "ls"], "image", ["ls"]),
        (["--rm", "--", "image", "--", "ls"], "image", ["ls"]),
        (["--rootfs", "/r", "--", "uname", "-r"], None, ["uname", "-r"]),
        (["--rootfs", "/r", "uname", "--", "-r"], None, ["uname", "--", "-r"]),
        (["--rootfs=/r", "--", "--", "x"], None, ["--", "x"]),
        (["--rootfs=/r"], None, []),
        (["image"], "image", []),
    ],
)
def test_image_rootfs_and_the_command(words, image, command):
    """``--rootfs`` takes the image's place; one ``--`` before the command is left out."""
    options = read("run", words)
    assert (options.image, options.command) == (image, command)


def test_exec_takes_a_container_and_a_command():
    """``exec`` reads its command verbatim too."""
    options = read("exec -it web -- sh -c x")
    assert (options.container, options.command) == ("web", ["sh", "-c", "x"])


def test_elsewhere_options_may_follow_arguments():
    """``kata rm web -f`` is ``kata rm -f web``; after ``--`` nothing is an option."""
    options = read("rm web -f db")
    assert (options.containers, options.force) == (["web", "db"], True)
    assert read("rm -- -f").containers == ["-f"]
    assert read("image import", ["-"]).source == "-"


def test_h_is_the_hostname_in_run_and_help_elsewhere():
    """Docker's ``run -h`` names the host."""
    assert read("run -h box image").hostname == "box"
    assert read("ps -h").help
    assert read("run --help").help


def test_help_is_asked_for_before_anything_is_missing():
    """``--help`` needs no arguments, and stops the reading."""
    assert read("exec --help --nonsense").help


def test_global_options_are_taken_after_the_verb():
    """``kata ps --root DIR`` is ``kata --root DIR ps``."""
    assert read("ps --root /x --debug").root == "/x"


@pytest.mark.parametrize(
    ("line", "message", "code"),
    [
        ("run --nmae x i", 'unknown option "--nmae": did you mean --name?', 125),
        ("run --na x i", 'unknown option "--na": did you mean --name?', 125),
        ("run --zzzz i", 'unknown option "--zzzz"', 125),
        ("run -itZ i", 'unknown option "-Z" in "-itZ"', 125),
        ("ps -af", "option -f needs a value: -f KEY=VALUE", 125),
        ("run -ti --name", "option --name needs a value: --name NAME", 125),
        ("run --rm=perhaps i", 'invalid value "perhaps" for --rm: must be "true" or "false"', 125),
        (
            "run --pull=often i",
            'invalid value "often" for --pull: must be "always", "missing" or "never"',
            125,
        ),
        ("ps -rm", 'unknown option "-r" in "-rm"', 125),
        ("ps x", '"kata ps" does not take the argument "x"', 1),
        ("rm -f", '"kata rm" needs an argument: CONTAINER is missing', 1),
        ("exec", '"kata exec" needs an argument: CONTAINER is missing', 125),
        ("run", '"kata run" needs an argument: IMAGE is missing', 125),
        ("run --rm --", '"kata run" needs an argument: IMAGE is missing', 125),
        ("completion fish", 'invalid SHELL "fish": must be "bash" or "zsh"', 125),
    ],
)
def test_usage_errors(line, message, code):
    """A bad option ends with 125, a wrong number of arguments with 1 (125 in run and exec)."""
    with pytest.raises(UsageError) as caught:
        read(line)
    assert (str(caught.value), caught.value.exit_code) == (message, code)


@given(st.lists(st.text(alphabet="-=abehitvx\u00e9 ", max_size=6), max_size=6))
def test_any_words_are_read_or_refused(words):
    """No command line whatever leads to another error than one of usage."""
    for name in ("run", "ps", "image import"):
        try:
            parse(grammar.verb(name), words, Options(), grammar.global_options())
        except UsageError:
            continue
