"""What is wrong is said in one line, in the log as engines read it, and nothing is left."""

import json
import os

import pytest

from conformance.bundle import config
from conformance.container import eventually

LONG = "x" * 1100


def broken(**changes) -> dict:
    """A config with something wrong."""
    return config("true", **changes)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("{broken", ("invalid character", "parse", "json", "lexical")),
        ("", ("EOF", "parse", "json", "end of")),
        ("[]", ("cannot unmarshal", "json", "object", "array", "invalid")),
        (broken(process={"args": "true"}), ("args", "cannot unmarshal")),
        (broken(process={"args": []}), ("args",)),
        (broken(process={"cwd": ""}), ("cwd",)),
        (broken(process={"cwd": "relative"}), ("cwd", "absolute")),
        (broken(process=None), ("process", "args")),
        (broken(root=None), ("root",)),
        (broken(process={"user": {"uid": "root", "gid": 0}}), ("uid", "cannot unmarshal")),
        (broken(process={"user": {"uid": 0xFFFFFFFF, "gid": 0}}), ("uid",)),
        (broken(process={"user": {"uid": 5, "gid": 0xFFFFFFFF}}), ("gid",)),
        (broken(process={"rlimits": [{"type": "RLIMIT_NOFILE", "soft": 20, "hard": 10}]}),
         ("rlimit",)),
    ],
    ids=["json", "empty", "list", "args-text", "args-none", "cwd-none", "cwd-relative",
         "process", "root", "uid-text", "uid-none", "gid-none", "soft-above-hard"],
)  # fmt: skip
def test_broken_config(suite, spec, words):
    """A config that cannot be is refused with a line that names the fault."""
    result = suite.refused(spec)
    result.refused(*words)
    assert len(result.message.strip().splitlines()) == 1


def test_missing_config(suite):
    """A bundle without a config.json is an error that names it."""
    container = suite.container("")
    os.unlink(f"{container.bundle}/config.json")
    container.create().refused("config.json")
    container.finish()


def test_missing_bundle(suite):
    """A bundle that is not there is an error that names it."""
    suite.runtime("create", "--bundle", "/nowhere/bundle", suite.name()).refused(
        "no such file or directory"
    )


@pytest.mark.parametrize(
    "name", ["a/b", "..", "../up", "a b", "\u00e9", "$x", "a\nb"],
    ids=["slash", "dots", "up", "space", "accent", "dollar", "newline"],
)  # fmt: skip
def test_invalid_id(suite, name):
    """An id that is no name of a file is refused, and makes none."""
    container = suite.container(config("true"))
    words = ["create", "--bundle", container.bundle, "--pid-file", f"{container.bundle}/pid"]
    result = container.call([*words, name])
    if not result.code:
        suite.runtime("delete", "--force", name)
    container.finish()
    result.refused("invalid container id", "id", "invalid")
    assert not os.path.exists(f"{suite.runtime.root}/../up")


@pytest.mark.parametrize("name", ["A", "under_score", "dot.ted", "plus+minus-", "0123"])
def test_valid_id(suite, name):
    """Letters, digits and _ + - . are fine."""
    with suite.created(config("true"), name=f"conf-{os.getpid()}-{name}") as container:
        assert container.state["id"] == container.id


def test_id_of_an_engine(suite):
    """The 64 hexadecimal digits that engines use are fine."""
    with suite.created(config("true"), name="0123456789abcdef" * 4) as container:
        assert container.status == "created"


def test_missing_id(suite):
    """An id is needed."""
    container = suite.container(config("true"))
    assert suite.runtime("create", "--bundle", container.bundle).code != 0
    container.finish()


def test_unknown_fields_are_ignored(suite):
    """Fields that the specification does not have are ignored, as it says."""
    spec = config("echo", "fine", future={"a": 1}, process={"mood": "good"}, linux={"x": [1]})
    assert suite.done(spec).out == "fine\n"


def test_failed_create_leaves_nothing(suite):
    """Neither state, nor a group, nor a process, nor a mount."""
    container = suite.container(config("/bin/nope"))
    assert container.create().code
    container.finish()
    root = suite.runtime.root
    assert not os.path.exists(f"{root}/{container.id}")
    bases = [f"/sys/fs/cgroup/{n}" for n in os.listdir("/sys/fs/cgroup") if n != "unified"]
    eventually(
        lambda: not any(os.path.exists(f"{b}/conformance/{container.id}") for b in bases),
        "the end of its group", 5,
    )  # fmt: skip
    with open("/proc/self/mountinfo", encoding="utf-8") as file:
        assert container.bundle not in file.read()


def test_failed_create_can_be_repeated(suite):
    """After a failure the same id can be used."""
    name = suite.name()
    container = suite.container(config("/bin/nope"), name)
    assert container.create().code
    container.finish()
    with suite.created(config("true"), name=name) as again:
        assert again.status == "created"


@pytest.mark.parametrize("verb", ["create", "start", "exec"])
def test_errors_are_logged_as_json(suite, verb):
    """The log's last line is an object with level, msg and time."""
    if verb == "create":
        result = suite.refused(config("/bin/nope"))
    elif verb == "start":
        result = suite.runtime("start", "conf-nobody")
    else:
        result = suite.runtime("exec", "conf-nobody", "true")
    assert result.log, "the log is empty"
    line = result.log[-1]
    assert line["level"] == "error"
    assert line["msg"]
    assert line["time"][:2] == "20"


def call(suite, tmp_path, *options: str) -> str:
    """The log of a failing call."""
    log = str(tmp_path / "log")
    done = suite.runtime("--root", suite.runtime.root, "--log", log, *options,
                         "start", "conf-nobody", bare=True)  # fmt: skip
    assert done.code
    with open(log, encoding="utf-8") as file:
        return file.read()


def test_log_as_text(suite, tmp_path):
    """--log-format text is lines of text with the error."""
    text = call(suite, tmp_path, "--log-format", "text")
    assert text.strip()
    assert not text.startswith("{")


def test_log_is_appended_to(suite, tmp_path):
    """A log that is there is kept."""
    log = tmp_path / "log"
    log.write_text('{"level":"info","msg":"before","time":"2020"}\n', encoding="utf-8")
    text = call(suite, tmp_path, "--log-format", "json")
    lines = [json.loads(line) for line in text.splitlines()]
    assert lines[0]["msg"] == "before"
    assert lines[-1]["level"] == "error"


def test_unknown_log_format_is_refused(suite):
    """A format that is none is an error."""
    assert suite.runtime("--log-format", "verse", "list", bare=True).code != 0


def test_errors_are_said_too(suite):
    """Without a log the error is on standard error."""
    done = suite.runtime("--root", suite.runtime.root, "start", "conf-nobody", bare=True)
    assert done.code == 1
    assert done.err.strip()
    assert done.out == ""


def test_error_code(runtime):
    """Errors of the runtime end with 1."""
    assert runtime("start", "conf-nobody").code == 1


def test_very_long_id(suite):
    """An id too long for a file's name is an error, not a fault."""
    container = suite.container(config("true"))
    words = ["create", "--bundle", container.bundle, "--pid-file", f"{container.bundle}/pid"]
    container.call([*words, LONG]).refused()
    container.finish()
