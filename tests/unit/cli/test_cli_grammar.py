"""The tables of the grammar are sound, and the programs' other faces follow from them."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess

import pytest

from kata.cli import grammar, reference
from kata.cli import help as pages
from kata.cli.completion import SCRIPTS

ALL = [*grammar.names(), "__complete"]
PAGE = os.path.join(os.path.dirname(__file__), "../../../docs/reference/cli.md")


@pytest.mark.parametrize("name", ALL)
def test_a_verb_is_well_formed(name):
    """Names and letters are unique, kinds are known, only what takes a value has a metavar."""
    verb = grammar.verb(name)
    options = [*verb.options, *grammar.global_options()]
    assert len({o.name for o in options}) == len(options)
    letters = [o.short for o in options if o.short]
    assert len(set(letters)) == len(letters)
    for option in options:
        assert option.kind in (grammar.FLAG, grammar.VALUE, grammar.LIST)
        assert bool(option.metavar) == (option.kind != grammar.FLAG)
        assert len(option.short) <= 1
        assert option.help[0].islower() or option.name == "signal"
        assert not option.help.endswith(".")
    assert verb.help[0].isupper()
    assert not verb.help.endswith(".")


@pytest.mark.parametrize("name", ALL)
def test_a_verb_has_a_module(name):
    """Each verb has a file of its own group."""
    assert importlib.util.find_spec(grammar.verb(name).module)


def test_only_the_last_argument_takes_many():
    """Words can be given to arguments in order, in one way only."""
    many = (grammar.SOME, grammar.ANY, grammar.REST)
    for name in ALL:
        assert all(a.count not in many for a in grammar.verb(name).arguments[:-1])


def test_sections_name_every_verb():
    """``kata --help`` leaves out nothing but help itself and what is an option too."""
    listed = {name for _, members in grammar.SECTIONS for name in members}
    assert listed == {name.split()[0] for name in grammar.names()} - {"help", "version"}


def test_aliases_stand_for_verbs():
    """Each alias is a name that is free, for a verb that exists."""
    for alias, name in grammar.ALIASES.items():
        assert grammar.has(name)
        assert not grammar.has(alias)


@pytest.mark.parametrize("name", grammar.names())
def test_help_fits_a_screen_and_shows_an_example(name):
    """``--help`` fits 80 x 24 with the prompt below it, and names every option."""
    verb = grammar.verb(name)
    text = pages.brief(verb)
    assert verb.example in text
    assert text.count("\n") <= 23
    assert max(map(len, text.splitlines())) <= 80
    for option in verb.options:
        assert f"--{option.name}" in text


@pytest.mark.parametrize("name", grammar.names())
def test_the_full_help_describes_every_option(name):
    """``kata help VERB`` fits the width and tells what each option does."""
    verb = grammar.verb(name)
    text = pages.full(verb)
    assert max(map(len, text.splitlines())) <= 80
    words = " ".join(text.split())
    for option in verb.options:
        assert option.help in words


@pytest.mark.parametrize("text", [pages.overview(), *map(pages.group, grammar.GROUPS)])
def test_overviews_fit_a_screen(text):
    """``kata --help`` and the help of groups fit 80 x 24 too."""
    assert text.count("\n") <= 23
    assert max(map(len, text.splitlines())) <= 80
    assert "kata " in text


def test_help_names_all_verbs():
    """Every verb can be found from ``kata --help``."""
    text = pages.overview()
    assert all(word in text for name in grammar.names() for word in name.split() if word != "help")


def test_the_reference_page_is_current():
    """``docs/reference/cli.md`` is what the grammar says (``make docs`` mends it)."""
    with open(PAGE, encoding="utf-8") as file:
        assert file.read() == reference.page()


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_completion_scripts_are_valid(shell):
    """The shells themselves accept the scripts."""
    if not shutil.which(shell):
        pytest.skip(f"{shell} is not installed")
    subprocess.run([shell, "-n"], input=SCRIPTS[shell].encode(), check=True)
