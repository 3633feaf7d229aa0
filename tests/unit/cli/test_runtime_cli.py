"""The command line that engines call: flags as Go has them, errors as runc tells them."""

from __future__ import annotations

import json

import pytest

from kata.cli.runtime import grammar
from kata.cli.runtime.containers import check_id
from kata.cli.runtime.events import statistics
from kata.cli.runtime.exec import _id
from kata.cli.runtime.main import main
from kata.errors import InvalidInput
from kata.resources.plan import for_engine, place


def run(capsys, *words):
    """Exit code, standard output and standard error of a command line."""
    code = main(words)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.mark.parametrize("flag", ["--root", "-root"])
@pytest.mark.parametrize("equals", [True, False])
def test_flags_as_go_takes_them(capsys, tmp_path, flag, equals):
    """One dash or two, the value after a space or after ``=``."""
    given = [f"{flag}={tmp_path}"] if equals else [flag, str(tmp_path)]
    assert run(capsys, *given, "list", "-f", "json") == (0, "null\n", "")


def test_flags_of_a_verb_end_at_its_first_argument(capsys, tmp_path):
    """What follows the id is the container's command."""
    code, _, err = run(capsys, "--root", str(tmp_path), "exec", "x", "--tty")
    assert code == 255
    assert "container does not exist" in err


def test_an_error_without_a_log_is_a_line_for_people(capsys, tmp_path):
    """As logrus writes it to standard error."""
    code, out, err = run(capsys, "--root", str(tmp_path), "state", "x")
    assert (code, out) == (1, "")
    assert err.startswith('time="')
    assert 'level=error msg="container does not exist' in err


def test_an_error_with_a_log_is_in_both_places(capsys, tmp_path):
    """A line of JSON for the engine, the bare text for whoever reads standard error."""
    log = tmp_path / "log"
    words = ("--root", str(tmp_path), "--log", str(log), "--log-format=json", "kill", "x", "9")
    code, _, err = run(capsys, *words)
    assert code == 1
    assert err.startswith("container does not exist")
    line = json.loads(log.read_text())
    assert line["level"] == "error"
    assert line["msg"].startswith("container does not exist")
    assert set(line) == {"level", "msg", "time"}


def test_delete_by_force_of_nothing_is_no_error(capsys, tmp_path):
    """Engines clean up whether or not there is something."""
    assert run(capsys, "--root", str(tmp_path), "delete", "--force", "x") == (0, "", "")
    assert run(capsys, "--root", str(tmp_path), "delete", "x")[0] == 1


@pytest.mark.parametrize("text", ["", ".", "..", "a/b", "a b", "x" * 300])
def test_ids_that_are_refused(text):
    """Whatever could be a path, or does not fit."""
    with pytest.raises(InvalidInput):
        check_id(text)


def test_ids_that_are_taken():
    """runc's alphabet."""
    assert check_id("aZ0_+-.") == "aZ0_+-."


@pytest.mark.parametrize("text", ["4294967295", "2147483648"])
def test_users_of_exec_that_no_runtime_takes(text):
    """The kernel takes 4294967295 for "no change", so that the process would stay root."""
    with pytest.raises(InvalidInput, match="must be in range 0-2147483647"):
        _id(text, "user")


def test_a_bundle_without_a_configuration(capsys, tmp_path):
    """Told in runc's words, which engines show."""
    code, _, err = run(capsys, "--root", str(tmp_path), "create", "-b", str(tmp_path), "x")
    assert code == 1
    assert "config.json not found" in err
    assert not list(tmp_path.iterdir())


def test_a_broken_configuration_names_the_field(capsys, tmp_path):
    """One line with the JSON path, and nothing is left."""
    (tmp_path / "config.json").write_text('{"ociVersion": "1.0.2", "process": {"cwd": 5}}')
    code, _, err = run(capsys, "--root", str(tmp_path / "r"), "create", "-b", str(tmp_path), "x")
    assert code == 1
    assert "process.cwd: must be an absolute path" in err or "process.cwd: must be a string" in err
    assert len(err.splitlines()) == 1
    assert not (tmp_path / "r").exists()


def test_the_network_of_the_host_is_refused(capsys, tmp_path):
    """A guest cannot have it, and must not seem to."""
    (tmp_path / "rootfs").mkdir()
    assert run(capsys, "spec", "-b", str(tmp_path))[0] == 0
    path = tmp_path / "config.json"
    spec = json.loads(path.read_text())
    spec["process"]["terminal"] = False
    spec["linux"]["namespaces"] = [{"type": "mount"}, {"type": "uts"}]
    path.write_text(json.dumps(spec))
    code, _, err = run(capsys, "--root", str(tmp_path / "r"), "create", "-b", str(tmp_path), "x")
    assert code == 1
    assert "Host networking requested" in err


def test_spec_does_not_overwrite(capsys, tmp_path):
    """A second one says that there is a file."""
    assert run(capsys, "spec", "-b", str(tmp_path))[0] == 0
    code, _, err = run(capsys, "spec", "-b", str(tmp_path))
    assert code == 1
    assert "exists. Remove it first" in err


def test_every_verb_has_help_and_a_module(capsys):
    """The table is complete."""
    for verb, (module, *_) in grammar.VERBS.items():
        assert hasattr(__import__(f"kata.cli.runtime.{module}", fromlist=["run"]), "run")
        assert run(capsys, verb, "--help")[1].startswith(f"usage: kata-runtime {verb}")


def test_features_are_of_the_specification(capsys):
    """What engines look for is there, and nothing is claimed that is not so."""
    code, out, _ = run(capsys, "features")
    found = json.loads(out)
    assert code == 0
    assert found["ociVersionMax"] == "1.2.0"
    assert "user" in found["linux"]["namespaces"]
    assert found["linux"]["mountExtensions"]["idmap"]["enabled"] is True
    assert {"idmap", "ridmap"} <= set(found["mountOptions"])
    assert "SCMP_ACT_NOTIFY" not in found["linux"]["seccomp"]["actions"]


@pytest.mark.parametrize(
    ("path", "found"),
    [("", ("kata", "c")), ("/docker/c1", ("docker", "c1")), ("a/b/c", ("a/b", "c")),
     ("/one", ("", "one")), ("/a/../b/c", ("b", "c")), ("../../b/./c", ("b", "c")),
     ("/a/..", ("kata", "c"))],
)  # fmt: skip
def test_where_the_control_group_is(path, found):
    """Below the root of every hierarchy, as the engine says."""
    assert place(path, "c") == found


def test_the_quota_holds_from_the_start():
    """Before it the guest comes up, which is not the container's work."""
    resources = {"cpu": {"quota": 20_000, "period": 50_000, "shares": 512, "cpus": "0"}}
    before, after = (for_engine(512, resources, started=s) for s in (False, True))
    assert (before.cpu_quota, after.cpu_quota) == (0, 20_000)
    assert before.cpu_shares == after.cpu_shares == 512
    assert before.cpuset_cpus == "0"
    assert before.memory > 512 << 20


def test_statistics_are_runcs():
    """From the guest's version 2 files to the document that engines parse."""
    found = statistics({
        "cpu.stat": "usage_usec 5\nuser_usec 3\nsystem_usec 2\n", "memory.current": "4096\n",
        "memory.max": "max\n", "memory.stat": "file 100\nanon 7\n", "pids.current": "2\n",
    })  # fmt: skip
    assert found["cpu"]["usage"] == {"total": 5000, "kernel": 2000, "user": 3000}
    assert found["memory"]["usage"]["usage"] == 4096
    assert found["memory"]["usage"]["limit"] == (1 << 64) - 1
    assert found["memory"]["cache"] == 100
    assert found["pids"]["current"] == 2


@pytest.mark.parametrize(("verb", "code"), [("pause", 0), ("checkpoint", 1), ("restore", 1)])
def test_help_says_whether_a_verb_is_supported(verb, code, capsys):
    """Podman and CRI-O ask by ``checkpoint --help`` whether there are checkpoints at all."""
    assert main([verb, "--help"]) == code
    assert f"usage: kata-runtime {verb}" in capsys.readouterr().out
