"""The exception tree: what an error says, how it travels, what a command line ends with."""

import inspect
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kata import errors
from kata.errors import (
    AgentError,
    CommandNotExecutable,
    CommandNotFound,
    ImageError,
    InvalidInput,
    InvalidSpec,
    KataError,
    NotFound,
    ProtocolError,
    from_wire,
    name_of,
    plain,
)

CLASSES = [
    cls for _, cls in inspect.getmembers(errors, inspect.isclass) if issubclass(cls, KataError)
]
TRAVELLING = [cls for cls in CLASSES if cls not in (KataError, InvalidSpec)]


def test_what_why_and_hint():
    """The text is what and why; the hint is apart."""
    error = KataError('cannot open "x"', why="no such file", hint="make it")
    assert str(error) == 'cannot open "x": no such file'
    assert error.hint == "make it"
    assert str(KataError("alone")) == "alone"


def test_a_specification_s_fault_has_a_path():
    """An InvalidSpec names the field of config.json."""
    error = InvalidSpec("process.args", "is empty", hint="give a command")
    assert str(error) == "config.json: process.args: is empty"
    assert (error.path, error.hint) == ("process.args", "give a command")


@pytest.mark.parametrize("cls", TRAVELLING, ids=lambda cls: cls.__name__)
def test_classes_survive_the_wire(cls):
    """A class travels by its name, with its code, its exit code and its hint."""
    sent = cls("what", why="why", hint="hint")
    got = from_wire(sent.code, name_of(sent), str(sent), sent.hint)
    assert type(got) is cls
    assert (str(got), got.hint, got.code) == ("what: why", "hint", cls.code)
    assert got.exit_code == cls.exit_code


def test_what_cannot_travel_arrives_as_its_base():
    """InvalidSpec arrives as InvalidInput, an unknown subclass as what it extends."""
    spec = InvalidSpec("a.b", "is bad")
    got = from_wire(spec.code, name_of(spec), str(spec), "")
    assert type(got) is InvalidInput
    assert str(got) == str(spec)
    assert name_of(type("Special", (ImageError,), {})("x")) == "ImageError"
    assert name_of(KataError("x")) == ""


@pytest.mark.parametrize(
    ("code", "cls"),
    [(3, InvalidInput), (5, NotFound), (15, ProtocolError), (7, KataError), (13, KataError)],
)
def test_a_code_alone_says_only_what_it_says(code, cls):
    """Without a name, only codes that mean one of our classes choose it."""
    error = from_wire(code, "Nonsense", "x", "")
    assert type(error) is cls
    assert (error.code, error.exit_code) == (code, 125)


def test_exit_codes_are_docker_s():
    """125 for our errors, 126 and 127 for a command that cannot be run, 137 for one killed."""
    assert CommandNotFound("x").exit_code == 127
    assert CommandNotExecutable("x").exit_code == 126
    assert {c.exit_code for c in CLASSES} == {125, 126, 127, 137}


def test_the_tree_is_drawn():
    """Every class stands in the drawing of the module's docstring, below its base."""
    drawn = errors.__doc__
    above: list[tuple[int, str]] = []
    seen = {}
    for line in drawn.splitlines():
        if match := re.match(r"^([ |]*)(?:\+- )?(\w+)", line):
            indent = len(match[1])
            if match[2] not in vars(errors):
                continue
            above = [entry for entry in above if entry[0] < indent]
            seen[match[2]] = above[-1][1] if above else ""
            above.append((indent, match[2]))
    assert seen == {c.__name__: c.__base__.__name__ if c is not KataError else "" for c in CLASSES}


@given(st.text(), st.integers(0, 50))
def test_plain_text_is_bounded_and_has_no_controls(text, limit):
    """Nothing of a foreign text can move a cursor, ring a bell, or fill a screen."""
    made = plain(text, limit)
    assert len(made) <= limit + 1
    assert all(c.isprintable() or c in "\n\t" for c in made)


def test_plain_text_stays():
    """A text of printable characters is left as it is."""
    assert plain('can\'t open "é 漢字"\n\tagain', 100) == 'can\'t open "é 漢字"\n\tagain'
    assert plain("\x1b[1m\udcff\x9b", 9) == "?[1m??"


def test_agent_errors_are_not_guessed():
    """INTERNAL from a peer that names no class does not claim that the agent died."""
    assert not isinstance(from_wire(13, "", "x", ""), AgentError)
