"""From a command line to an exit code: dispatch, messages, and what is imported on the way."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from kata import errors
from kata.cli import grammar, report
from kata.cli.main import main
from kata.cli.parse import Options

SOURCE = os.path.abspath(os.path.join(os.path.dirname(__file__), "../../../src"))
HOT_MODULES = 33  # of a command line that is read: the interpreter's, os and its parts, gc


PROGRAM = f"""
import sys
sys.path.insert(0, {SOURCE!r})
from kata.cli.main import enter
enter(sys.argv[1:])
"""


def kata(*words, stdout=subprocess.PIPE):
    """Run the program as it is installed: without site and user settings."""
    command = [sys.executable, "-I", "-S", "-c", PROGRAM, *words]
    return subprocess.run(command, stdout=stdout, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize(
    ("words", "code", "begins"),
    [
        ([], 0, "Usage: kata"),
        (["--help"], 0, "Usage: kata"),
        (["-h"], 0, "Usage: kata"),
        (["help"], 0, "Usage: kata"),
        (["help", "run"], 0, "Usage: kata run"),
        (["help", "image", "pull"], 0, "Usage: kata image pull"),
        (["help", "images"], 0, "Usage: kata image ls"),
        (["image"], 0, "Usage: kata image COMMAND"),
        (["image", "--help"], 0, "Usage: kata image COMMAND"),
        (["images", "--help"], 0, "Usage: kata image ls"),
        (["run", "--help"], 0, "Usage: kata run"),
        (["--version"], 0, "kata version "),
        (["-v"], 0, "kata version "),
        (["--debug", "version"], 0, "kata "),
        (["completion", "bash"], 0, "# bash completion"),
    ],
)
def test_what_is_printed(capsys, words, code, begins):
    """Help and versions go to stdout and end well."""
    assert main(words) == code
    assert capsys.readouterr().out.startswith(begins)


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["rnu"], 1, 'kata: unknown command "rnu": did you mean "kata run"?\n'),
        (["bogus"], 1, 'kata: unknown command "bogus"\n'),
        (["image", "rmm"], 1, 'kata: unknown command "image rmm": did you mean "kata image rm"?\n'),
        (["help", "zzz"], 1, 'kata: unknown command "zzz"\n'),
        (["--rot", "/x", "ps"], 125, 'kata: unknown option "--rot": did you mean --root?\n'),
        (["run", "--nmae"], 125, 'kata: unknown option "--nmae": did you mean --name?\n'),
        (["version", "--format", "xml"], 125, 'kata: invalid value "xml" for --format'),
        (["--root"], 125, "kata: option --root needs a value: --root DIR\n"),
    ],
)
def test_usage_errors_are_one_line_and_a_hint(capsys, words, code, message):
    """What is wrong goes to stderr, with where to look."""
    assert main(words) == code
    captured = capsys.readouterr()
    assert captured.err.startswith(message)
    assert "\n  hint: kata " in captured.err
    assert captured.err.count("\n") == 2
    assert captured.out == ""


def test_errors_are_rendered():
    """What, why, the guest's console indented, the hint; nothing that drives a terminal."""
    error = errors.HypervisorError(
        "the guest did not come up",
        why="no answer\x1b[2J",
        hint="look",
        console="one\ntwo\x07\n",
    )
    assert report.render(error) == (
        "kata: the guest did not come up: no answer\\x1b[2J\n"
        "  last lines of the guest's console:\n    one\n    two\\x07\n"
        "  hint: look"
    )


@pytest.mark.parametrize(
    ("error", "verb", "code"),
    [
        (errors.NotFound("no such container"), "rm", 1),
        (errors.NotFound("no such container"), "exec", 125),
        (errors.CommandNotFound("no such program"), "exec", 127),
        (errors.CommandNotExecutable("not executable"), "run", 126),
        (errors.HostError("no QEMU"), "run", 125),
        (errors.HostError("no QEMU"), "check", 1),
    ],
)
def test_exit_codes(capsys, error, verb, code):
    """Our own failure is 125 where the code is the process's, and 1 elsewhere, as in Docker."""
    options = Options()
    options.failure = grammar.verb(verb).failure
    assert report.report(error, options) == code
    capsys.readouterr()


def test_an_unexpected_error_keeps_its_traceback(capsys, monkeypatch, tmp_path):
    """One line on stderr; the traceback in a private file, or on stderr with --debug."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))

    def explode(_options):
        raise ValueError("broken")

    monkeypatch.setattr("kata.cli.version.run", explode)
    assert main(["version"]) == 125
    (kept,) = tmp_path.iterdir()
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "kata: internal error: ValueError: broken"
    assert str(kept) in lines[1]
    assert "Traceback" in kept.read_text()
    assert kept.stat().st_mode & 0o777 == 0o600
    assert main(["--debug", "version"]) == 125
    assert "Traceback" in capsys.readouterr().err
    assert len(list(tmp_path.iterdir())) == 1


def test_an_interrupt_ends_with_130(monkeypatch):
    """Ctrl-C is no error message."""

    def interrupt(_options):
        raise KeyboardInterrupt

    monkeypatch.setattr("kata.cli.version.run", interrupt)
    assert main(["version"]) == 130


def test_a_reader_that_went_away_is_no_error():
    """``kata ... | true`` says nothing and ends as if by SIGPIPE."""
    reader, writer = os.pipe()
    os.close(reader)
    result = kata("--help", stdout=writer)
    os.close(writer)
    assert (result.returncode, result.stderr) == (141, "")


def test_a_full_disk_is_told():
    """Output that cannot be written is a failure, not a success."""
    with open("/dev/full", "w") as full:
        result = kata("--help", stdout=full)
    assert result.returncode == 1
    assert result.stderr == "kata: cannot write the output: No space left on device\n"


def test_reading_a_command_line_imports_little():
    """What is imported until the options of ``run`` are known: ours, and ``os`` with its parts."""
    code = f"""
import sys
sys.path.insert(0, {SOURCE!r})
from kata.cli import grammar, main
from kata.cli.parse import Options, parse
parse(grammar.verb("run"), ["--rm", "-it", "image", "sh"], Options(), grammar.global_options())
print(" ".join(sorted(sys.modules)))
"""
    # /usr/bin/python3 is what the programs run with; others import more by themselves
    result = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True
    )
    modules = result.stdout.split()
    ours = {m for m in modules if m.startswith("kata.")}
    assert ours == {
        "kata.cli", "kata.cli.grammar", "kata.cli.main", "kata.cli.parse", "kata.errors",
        "kata.wire", "kata.wire.record",
    }  # fmt: skip
    heavy = {"argparse", "typing", "re", "enum", "json", "subprocess", "logging", "dataclasses"}
    assert not heavy & set(modules)
    assert len(modules) <= HOT_MODULES + len(ours)


def test_the_version_is_that_of_the_project():
    """The program and the project file name one version."""
    import tomllib

    from kata.version import VERSION

    with open(f"{SOURCE}/../pyproject.toml", "rb") as file:
        assert tomllib.load(file)["project"]["version"] == VERSION


def test_json_is_one_value(tmp_path):
    """``--format json`` prints one array or object, also when there is nothing."""
    assert json.loads(kata("ps", "--root", str(tmp_path), "--format", "json").stdout) == []
    assert "kata" in json.loads(kata("version", "--format=json").stdout)


@pytest.mark.parametrize("closed", ["0", "1", "2", "012"])
def test_closed_streams(closed):
    """A standard stream that the caller closed is no fault, and no other file takes its place."""
    shell = " ".join(f"{number}>&-" for number in closed)
    program = f'exec "$@" {shell}'
    for words, code in ((["version"], 0), (["nosuch"], 1)):
        argv = ["/bin/sh", "-c", program, "sh", f"{SOURCE}/../bin/kata", *words]
        done = subprocess.run(argv, capture_output=True, check=False)
        assert done.returncode == code
        assert b"Traceback" not in done.stderr
        assert b"internal error" not in done.stderr
        assert bool(done.stdout) == (code == 0 and "1" not in closed)
