"""``kata install``: what is written where, what is refused, what is taken away again."""

from __future__ import annotations

import json
import os
import tomllib

import pytest

from kata.cli.main import main

ENGINES = {"containerd": "1.7.1", "crio": "1.28.4", "docker": "20.10.24", "podman": "4.3.1"}
FILES = {
    "containerd": "etc/containerd/config.toml", "crio": "etc/crio/crio.conf.d/50-kata.conf",
    "docker": "etc/docker/daemon.json", "podman": "etc/containers/containers.conf.d/50-kata.conf",
}  # fmt: skip
CRI = 'plugins."io.containerd.grpc.v1.cri"'
IMPORTING = 'version = {}\nimports = ["/etc/containerd/conf.d/*.toml"]\n'


class Machine:
    """A tree of files, and the command on it."""

    def __init__(self, directory, capsys) -> None:
        self.directory = directory
        self._capsys = capsys
        self.out = self.err = ""

    def install(self, engine: str, *words: str, version: str = "") -> int:
        """Run the command; what it prints is kept."""
        known = ["--engine-version", version or ENGINES[engine]]
        code = main(["install", engine, "--destdir", str(self.directory), *known, *words])
        self.out, self.err = self._capsys.readouterr()
        return code

    def write(self, path: str, text: str) -> None:
        """Somebody writes a file."""
        target = self.directory / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)

    def read(self, path: str) -> str:
        """A file's text."""
        return (self.directory / path).read_text()

    def files(self) -> set[str]:
        """All files that there are."""
        found = set()
        for directory, _, names in os.walk(self.directory):
            found |= {os.path.relpath(f"{directory}/{name}", self.directory) for name in names}
        return found

    def runtimes(self, path: str, section: str) -> dict:
        """The handlers in a file of containerd's."""
        plugins = tomllib.loads(self.read(path))["plugins"]
        return plugins[section]["containerd"]["runtimes"]


@pytest.fixture
def machine(tmp_path, capsys):
    """A machine without any file."""
    return Machine(tmp_path, capsys)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_file_is_written_and_removed(machine, engine):
    """The engine's file comes to be, is left alone the second time, and goes with its memory."""
    assert machine.install(engine) == 0
    assert f"wrote {machine.directory}/{FILES[engine]}\n" in machine.out
    assert "try it:  " in machine.out
    assert machine.files() == {FILES[engine], "var/lib/kata/engines.json"}
    before = os.stat(machine.directory / FILES[engine])
    assert machine.install(engine) == 0
    assert machine.out.startswith("nothing to do: ")
    assert os.stat(machine.directory / FILES[engine]) == before
    assert machine.install(engine, "--undo") == 0
    assert machine.out.startswith(f"removed {machine.directory}/{FILES[engine]}")
    assert machine.files() == set()
    assert not os.path.exists(os.path.dirname(machine.directory / FILES[engine]))


@pytest.mark.parametrize("engine", ENGINES)
def test_a_dry_run_writes_nothing(machine, engine):
    """What would be written is printed, and is what is written then."""
    assert machine.install(engine, "--dry-run") == 0
    head, _, text = machine.out.partition("\n")
    assert head == f"# would write {machine.directory}/{FILES[engine]}"
    assert os.listdir(machine.directory) == []
    machine.install(engine)
    assert machine.read(FILES[engine]) == text
    assert machine.install(engine, "--undo", "--dry-run") == 0
    assert machine.out == f"would remove {machine.directory}/{FILES[engine]}\n"
    assert machine.read(FILES[engine]) == text


@pytest.mark.parametrize("engine", ENGINES)
def test_what_was_edited_is_kept(machine, engine):
    """A file of ours that somebody edited is neither written anew nor removed, and that is said."""
    machine.install(engine)
    edited = machine.read(FILES[engine]) + " "
    machine.write(FILES[engine], edited)
    for words in ((), ("--undo",), ("--dry-run",)):
        assert machine.install(engine, *words) == 1
        assert f'"{machine.directory}/{FILES[engine]}" was edited since' in machine.err
        assert machine.read(FILES[engine]) == edited


@pytest.mark.parametrize("engine", ["crio", "podman"])
def test_a_file_of_somebody_else_is_kept(machine, engine):
    """A file of our name that we did not write stops the command."""
    machine.write(FILES[engine], "# mine\n")
    assert machine.install(engine) == 1
    assert "exists already" in machine.err
    assert machine.read(FILES[engine]) == "# mine\n"
    assert machine.install(engine, "--undo") == 0
    assert machine.out.startswith("nothing to undo")
    assert machine.files() == {FILES[engine]}


def test_one_engine_is_undone_alone(machine):
    """The others stay, directories that are used stay; a file that is gone is no error."""
    for engine in ENGINES:
        machine.install(engine)
    machine.write("etc/crio/crio.conf.d/10-mine.conf", "")
    machine.install("crio", "--undo")
    assert FILES["crio"] not in machine.files()
    assert {FILES["podman"], "etc/crio/crio.conf.d/10-mine.conf"} <= machine.files()
    os.unlink(machine.directory / FILES["podman"])
    assert machine.install("podman", "--undo") == 0
    assert "gone already" in machine.out


def test_programs_that_moved_are_followed(machine, monkeypatch):
    """Installed elsewhere, our own file is written anew."""
    machine.install("podman")
    monkeypatch.setattr("sys.argv", ["/opt/kata/bin/kata"])
    assert machine.install("podman") == 0
    assert '["/opt/kata/bin/kata-runtime"]' in machine.read(FILES["podman"])
    assert machine.install("podman", "--undo") == 0
    assert machine.files() == set()


def test_programs_below_destdir_are_named_as_there(machine, monkeypatch):
    """A program that runs from the tree names its neighbours without the tree."""
    monkeypatch.setattr("sys.argv", [f"{machine.directory}/usr/local/bin/kata"])
    machine.install("crio")
    handlers = tomllib.loads(machine.read(FILES["crio"]))["crio"]["runtime"]["runtimes"]
    assert handlers["kata"]["runtime_path"] == "/usr/local/bin/kata-runtime"
    assert handlers["kata"]["runtime_type"] == "oci"
    assert handlers["kata-vm"]["runtime_path"] == "/usr/local/bin/containerd-shim-kata-v2"
    assert handlers["kata-vm"]["runtime_type"] == "vm"


def test_an_old_podman_is_refused(machine):
    """A Podman that may not read the directory is told so."""
    assert machine.install("podman", version="2.2.1") == 1
    assert "Podman 2.2.1 is too old" in machine.err


@pytest.mark.parametrize("words", [("--engine-version", "new"), ("--destdir", "/no/such")])
def test_bad_options_are_refused(machine, words):
    """A version that is none and a tree that is not there."""
    assert machine.install("podman", *words) != 0
    assert machine.err.startswith("kata: ")
    assert machine.files() == set()


def test_an_engine_that_is_not_there(machine, capsys):
    """An engine that is not installed is an error with a way out."""
    assert main(["install", "crio", "--destdir", str(machine.directory)]) == 1
    assert "--engine-version" in capsys.readouterr().err


def test_docker_with_a_configuration_of_its_own(machine):
    """daemon.json is somebody's: the merged entry is printed, and once it is there all is well."""
    mine = {"data-root": "/srv", "runtimes": {"crun": {"path": "/usr/bin/crun"}}}
    machine.write(FILES["docker"], json.dumps(mine))
    assert machine.install("docker") == 1
    assert "Docker has a configuration of its own" in machine.err
    added = json.loads(machine.out)
    assert set(added["runtimes"]) == {"crun", "kata"}
    assert json.loads(machine.read(FILES["docker"])) == mine
    machine.write(FILES["docker"], json.dumps(mine | added))
    assert machine.install("docker") == 0
    assert "has the runtime already" in machine.out
    assert machine.files() == {FILES["docker"]}


@pytest.mark.parametrize("text", ["{", "[]"])
def test_docker_with_an_unreadable_configuration(machine, text):
    """A daemon.json that Docker would refuse is named."""
    machine.write(FILES["docker"], text)
    assert machine.install("docker") == 1
    assert f'cannot read "{machine.directory}/{FILES["docker"]}"' in machine.err


@pytest.mark.parametrize(("version", "level", "section", "names"), [
    ("1.6.20", 2, "io.containerd.grpc.v1.cri", {"runc", "kata"}),
    ("2.2.0", 3, "io.containerd.cri.v1.runtime", {"kata"}),
])  # fmt: skip
def test_containerd_without_a_configuration(machine, version, level, section, names):
    """The main file is ours; before 2.0 it names runc too, which is lost otherwise."""
    assert machine.install("containerd", version=version) == 0
    assert tomllib.loads(machine.read(FILES["containerd"]))["version"] == level
    runtimes = machine.runtimes(FILES["containerd"], section)
    assert set(runtimes) == names
    assert ("runtime_path" in runtimes["kata"]) == (level == 3)


def test_containerd_finds_the_shim_by_name_where_it_looks(machine, monkeypatch):
    """The shim's path is named only where containerd's own search would miss it."""
    named = {"1.7.1": "runtime_type", "2.0.0": "runtime_path"}
    for version, setting in named.items():
        monkeypatch.setattr("sys.argv", ["/opt/kata/bin/kata"])
        machine.install("containerd", "--dry-run", version=version)
        assert machine.out.startswith("# would write")
        assert f'{setting} = "/opt/kata/bin/containerd-shim-kata-v2"' in machine.out
        monkeypatch.setattr("sys.argv", ["/usr/local/bin/kata"])
        machine.install("containerd", "--dry-run", version=version)
        assert "containerd-shim-kata-v2" not in machine.out
        assert 'runtime_type = "io.containerd.kata.v2"' in machine.out


@pytest.mark.parametrize(("version", "level", "section"), [
    ("1.7.1", 2, "io.containerd.grpc.v1.cri"), ("2.1.0", 2, "io.containerd.grpc.v1.cri"),
    ("2.1.0", 3, "io.containerd.cri.v1.runtime"),
])  # fmt: skip
def test_containerd_that_imports_a_directory(machine, version, level, section):
    """A file of ours in the imported directory, of no higher version than the main file."""
    machine.write(FILES["containerd"], IMPORTING.format(level))
    assert machine.install("containerd", version=version) == 0
    path = "etc/containerd/conf.d/50-kata.toml"
    assert tomllib.loads(machine.read(path))["version"] == level
    assert ("runc" in machine.runtimes(path, section)) == version.startswith("1.")
    assert machine.install("containerd", version=version) == 0
    assert machine.out.startswith("nothing to do")
    machine.install("containerd", "--undo")
    assert machine.files() == {FILES["containerd"]}


@pytest.mark.parametrize("where", [FILES["containerd"], "etc/containerd/conf.d/10-mine.toml"])
def test_a_section_is_not_replaced(machine, where):
    """Before 2.0 nothing is written where a file has a section for the CRI plugin: by hand."""
    mine = f'[{CRI}]\nsandbox_image = "mine"\n'
    main_file = IMPORTING.format(2) + (mine if where == FILES["containerd"] else "")
    machine.write(FILES["containerd"], main_file)
    if where != FILES["containerd"]:
        machine.write(where, f"version = 2\n{mine}")
    before = machine.files()
    assert machine.install("containerd") == 1
    assert f'add the lines above to "{machine.directory}/{where}"' in machine.err
    assert "reads that of one file" in machine.err
    assert machine.files() == before
    machine.write(where, machine.read(where) + machine.out)
    assert set(machine.runtimes(where, "io.containerd.grpc.v1.cri")) == {"runc", "kata"}
    assert machine.install("containerd") == 0
    assert "has the handler already" in machine.out


def test_a_section_is_added_to_from_2_0_on(machine):
    """From 2.0 on tables are merged: a file of ours beside somebody's section."""
    mine = "[plugins.'io.containerd.cri.v1.runtime'.cni]\nbin_dir = '/opt'\n"
    machine.write(FILES["containerd"], IMPORTING.format(3) + mine)
    assert machine.install("containerd", version="2.0.0") == 0
    assert "etc/containerd/conf.d/50-kata.toml" in machine.files()


def test_runc_is_not_named_twice(machine):
    """Lines for a file that has handlers name kata alone."""
    text = f'version = 2\n[{CRI}.containerd.runtimes.runc]\nruntime_type = "other"\n'
    machine.write(FILES["containerd"], text)
    assert machine.install("containerd") == 1
    assert "runtimes.runc" not in machine.out
    assert "runtimes.kata]" in machine.out
    tomllib.loads(text + machine.out)


@pytest.mark.parametrize(("text", "why"), [
    ("", "says no version"), ("version = 2\n", "imports no directory"),
    ('version = 2\nimports = ["/etc/other.toml"]\n', "imports no directory"),
])  # fmt: skip
def test_containerd_without_a_place_for_our_file(machine, text, why):
    """A main file that imports nothing: what to add to it."""
    machine.write(FILES["containerd"], text)
    assert machine.install("containerd") == 1
    assert why in machine.err
    tomllib.loads(text + machine.out)
    assert machine.files() == {FILES["containerd"]}


def test_relative_imports(machine):
    """Names in imports are relative to the file that has them."""
    machine.write(FILES["containerd"], 'version = 2\nimports = ["more/*.toml"]\n')
    assert machine.install("containerd") == 0
    assert "etc/containerd/more/50-kata.toml" in machine.files()


def test_containerd_without_kubernetes(machine):
    """Docker's packages switch the CRI plugin off: nothing is needed then, and that is said."""
    machine.write(FILES["containerd"], 'disabled_plugins = ["cri"]\n')
    assert machine.install("containerd") == 1
    assert "--runtime io.containerd.kata.v2" in machine.err


def test_a_lost_memory_is_said(machine):
    """A file of ours that remembers nonsense stops the command."""
    machine.write("var/lib/kata/engines.json", "[]")
    assert machine.install("podman") == 1
    assert "engines.json" in machine.err
