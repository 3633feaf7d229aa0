"""The other verbs: list, ps, run, spec, features, version, help; and the flags of all."""

import json
import os

import jsonschema
import pytest

from conformance.bundle import config
from conformance.container import eventually
from support.source import CHECKOUT

SCHEMAS = f"{CHECKOUT}/tests/data/runtime-spec-1.2.0"
VERBS = ("create", "delete", "exec", "kill", "list", "pause", "ps", "resume", "run", "spec",
         "start", "state", "update")  # fmt: skip


@pytest.fixture(scope="module")
def running(suite):
    """A container that runs."""
    with suite.running(config("sleep", "100000")) as container:
        yield container


def test_list_as_json(running):
    """list --format json has what state has."""
    entries = running.runtime("list", "--format", "json").ok().json()
    [entry] = [e for e in entries if e["id"] == running.id]
    assert entry["status"] == "running"
    assert entry["pid"] == running.pid
    assert entry["bundle"] == running.bundle


def test_list_as_a_table(running):
    """list is a table with a heading."""
    lines = running.runtime("list").ok().out.splitlines()
    assert lines[0].split()[:3] == ["ID", "PID", "STATUS"] or lines[0].split()[0] == "NAME"
    assert any(running.id in line and "running" in line for line in lines[1:])


def test_list_quiet(running):
    """list -q is the ids alone."""
    assert running.id in running.runtime("list", "-q").ok().out.split()


def test_ps_as_json(running):
    """ps --format json is a list of pids."""
    pids = running.runtime("ps", "--format", "json", running.id).ok().json()
    assert all(isinstance(pid, int) for pid in pids)
    assert running.pid in pids


def test_ps_as_a_table(running):
    """ps is a table of the container's processes."""
    lines = running.runtime("ps", running.id).ok().out.splitlines()
    assert "PID" in lines[0].split()
    assert any(str(running.pid) in line.split() for line in lines[1:])


def test_version(runtime):
    """--version names the program, its version and that of the specification."""
    lines = runtime("--version", bare=True).ok().out.splitlines()
    assert "version" in lines[0]
    assert any(line.startswith("spec: 1.") for line in lines)


def test_help_lists_the_verbs(runtime):
    """--help names every verb that engines call."""
    text = runtime.help()
    assert [verb for verb in VERBS if verb not in text] == []


@pytest.mark.parametrize("verb", ["create", "exec", "kill", "delete", "update", "run"])
def test_help_of_a_verb(runtime, verb):
    """VERB --help succeeds and says something."""
    done = runtime(verb, "--help", bare=True)
    assert done.code == 0
    assert verb in done.out + done.err


@pytest.mark.parametrize(
    "words",
    [("fly",), ("create", "--no-such-flag", "x"), ("start",), ("--no-such-flag", "list")],
    ids=["verb", "flag", "argument", "global"],
)
def test_wrong_words_are_refused(runtime, words):
    """Unknown verbs and flags, and missing arguments, are errors."""
    done = runtime(*words)
    assert done.code != 0
    assert done.out + done.err


@pytest.mark.needs("features")
def test_features(runtime):
    """features is JSON with the versions, hooks, mount options and namespaces."""
    features = runtime.features
    assert features["ociVersionMin"] <= "1.0.2"
    assert features["ociVersionMax"] >= "1.0.2"
    assert {"prestart", "createRuntime", "poststop"} <= set(features["hooks"])
    assert {"bind", "rbind", "ro", "rprivate"} <= set(features["mountOptions"])
    assert {"pid", "ipc", "uts", "mount", "network"} <= set(features["linux"]["namespaces"])


@pytest.mark.needs("features")
def test_features_of_seccomp(runtime):
    """features names the actions and operators of filters."""
    seccomp = runtime.features["linux"]["seccomp"]
    assert seccomp["enabled"] is True
    assert {"SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO"} <= set(seccomp["actions"])


def inlined(node, name: str):
    """A schema without references: each replaced by what it means."""
    if isinstance(node, list):
        return [inlined(inner, name) for inner in node]
    if not isinstance(node, dict):
        return node
    if "$ref" not in node:
        return {key: inlined(inner, name) for key, inner in node.items()}
    file, _, pointer = node["$ref"].partition("#")
    with open(f"{SCHEMAS}/{file or name}", encoding="utf-8") as opened:
        target = json.load(opened)
    for part in pointer.strip("/").split("/"):
        target = target[part]
    return inlined(target, file or name)


def validated(path: str) -> dict:
    """A config.json that the specification's schema accepts."""
    with open(path, encoding="utf-8") as file:
        spec = json.load(file)
    with open(f"{SCHEMAS}/config-schema.json", encoding="utf-8") as file:
        schema = json.load(file)
    jsonschema.Draft4Validator(inlined(schema, "config-schema.json")).validate(spec)
    return spec


def test_spec(suite):
    """spec writes a config.json that the schema accepts, and does not overwrite one."""
    folder = suite.folder()
    suite.runtime("spec", cwd=folder).ok()
    spec = validated(f"{folder}/config.json")
    assert spec["process"]["args"] == ["sh"]
    assert suite.runtime("spec", cwd=folder).code != 0


def test_spec_runs(suite):
    """What spec writes runs, its terminal left out."""
    container = suite.container("")
    os.unlink(f"{container.bundle}/config.json")
    suite.runtime("spec", "--bundle", container.bundle).ok()
    with open(f"{container.bundle}/config.json", encoding="utf-8") as file:
        spec = json.load(file)
    spec["process"].update(terminal=False, args=["echo", "by spec"])
    with open(f"{container.bundle}/config.json", "w", encoding="utf-8") as file:
        json.dump(spec, file)
    done = suite.runtime("run", "--bundle", container.bundle, container.id).ok()
    container.finish()
    assert done.out == "by spec\n"


@pytest.mark.needs("rootless")
def test_spec_rootless(suite):
    """spec --rootless asks for a user namespace."""
    folder = suite.folder()
    suite.runtime("spec", "--rootless", "--bundle", folder).ok()
    kinds = {entry["type"] for entry in validated(f"{folder}/config.json")["linux"]["namespaces"]}
    assert "user" in kinds


def run(suite, *args: str, options: tuple[str, ...] = (), stdin: str = ""):
    """run in the foreground: what the call gave, and the container."""
    container = suite.container(config(*args))
    try:
        words = ["run", "--bundle", container.bundle, *options, container.id]
        return suite.runtime(*words, stdin=stdin), container
    finally:
        container.finish()


def test_run_passes_output(suite):
    """run gives the program's output and errors."""
    done, _ = run(suite, "sh", "-c", "echo out; echo err >&2")
    assert done.ok().out == "out\n"
    assert "err\n" in done.err


@pytest.mark.parametrize("code", [3, 200])
def test_run_passes_the_code(suite, code):
    """run ends with the program's code."""
    assert run(suite, "sh", "-c", f"exit {code}")[0].code == code


def test_run_passes_input(suite):
    """run gives its input to the program."""
    assert run(suite, "wc", "-c", stdin="12345")[0].ok().out == "5\n"


def test_run_leaves_nothing(suite):
    """After run the container does not exist."""
    _, container = run(suite, "true")
    suite.runtime("state", container.id).refused("does not exist")


def test_run_of_nothing_fails(suite):
    """run of a program that is missing fails with a message, and leaves nothing."""
    done, container = run(suite, "/bin/nope")
    done.refused("no such file")
    suite.runtime("state", container.id).refused("does not exist")


@pytest.mark.needs("keep")
def test_run_keeps(suite):
    """run --keep leaves the state of what has ended."""
    done, container = run(suite, "true", options=("--keep",))
    done.ok()
    try:
        assert container.status == "stopped"
    finally:
        container.delete("--force")


def test_bundle_is_the_working_directory(suite):
    """Without --bundle it is the current directory."""
    container = suite.container(config("echo", "from here"))
    done = suite.runtime("run", container.id, cwd=container.bundle)
    container.finish()
    assert done.ok().out == "from here\n"


@pytest.mark.parametrize("form", ["--bundle={}", "-b {}", "--bundle {}"])
def test_forms_of_a_flag(suite, form):
    """A flag's value may follow it, or an equals sign; short forms work."""
    container = suite.container(config("echo", "formed"))
    done = suite.runtime("run", *form.format(container.bundle).split(), container.id)
    container.finish()
    assert done.ok().out == "formed\n"


@pytest.mark.parametrize("value", ["auto", "false"])
def test_rootless_flag_is_accepted(suite, value):
    """--rootless is accepted, as engines may give it."""
    # crun makes a directory of the value
    suite.runtime("--rootless", value, "list", "-q", cwd=suite.folder()).ok()


def test_debug_flag_is_accepted(suite):
    """--debug is accepted and says more to the log, not to the output."""
    done = suite.runtime("--debug", "list", "-q").ok()
    assert "level" not in done.out


@pytest.mark.needs("pidfd-socket")
def test_pidfd_socket(suite):
    """--pidfd-socket sends a descriptor of the process."""
    import select

    from conformance.console import Console

    with (
        Console(suite.folder()) as socket,
        suite.created(config("true"), "--pidfd-socket", socket.path) as container,
    ):
        socket.accept()
        assert not select.select([socket.fd], [], [], 0)[0]
        container.kill("9").ok()
        container.wait()
        eventually(lambda: select.select([socket.fd], [], [], 0)[0], "the end of the process")
