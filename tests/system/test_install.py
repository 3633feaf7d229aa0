"""Installing below a prefix, and taking exactly that away again."""

import os
import subprocess

import pytest

from support.source import CHECKOUT

CONFIGURATION = "etc/kata-containers/configuration.toml"


class Prefix:
    """An installation in a directory of its own, and how to change it."""

    def __init__(self, directory: str) -> None:
        self.prefix = f"{directory}/prefix"
        self.root = f"{directory}/root"
        os.makedirs(f"{self.root}{directory}")
        os.symlink(f"{self.root}{self.prefix}", self.prefix)

    def make(self, action: str, **environment: str) -> str:
        """Run the program behind ``make install`` and ``make uninstall``; what it prints."""
        argv = ["/usr/bin/python3", f"{CHECKOUT}/packaging/install.py", action]
        done = subprocess.run(
            [*argv, self.prefix, self.root], stdout=subprocess.PIPE, text=True, check=True,
            env=os.environ | {"EXTRAS": "no"} | environment,
        )  # fmt: skip
        return done.stdout

    def files(self) -> set[str]:
        """The files there are, from the root; those of the package are left out."""
        found = set()
        for directory, _, names in os.walk(self.root):
            found |= {os.path.relpath(f"{directory}/{name}", self.root) for name in names}
        ours = os.path.relpath(f"{self.prefix}/", "/")
        return {f.removeprefix(f"{ours}/") for f in found if f"{ours}/lib/kata/kata/" not in f}

    def run(self, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run an installed program."""
        argv = [f"{self.prefix}/bin/{program}", *arguments]
        return subprocess.run(argv, capture_output=True, text=True, check=False, cwd="/")


@pytest.fixture
def prefix(directory):
    """A prefix with nothing in it."""
    return Prefix(directory)


def configure(prefix: Prefix, text: str) -> None:
    """Somebody edits the configuration."""
    with open(f"{prefix.root}/{CONFIGURATION}", "a", encoding="utf-8") as file:
        file.write(text)


def test_all_is_there_and_then_gone(prefix):
    """Programs, completions, configuration; after uninstalling no file is left."""
    prefix.make("install")
    assert prefix.files() == {
        "bin/kata", "bin/kata-runtime", "bin/containerd-shim-kata-v2", CONFIGURATION,
        "lib/kata/installed.json", "lib/systemd/system/kata-factory.service",
        "share/bash-completion/completions/kata", "share/zsh/site-functions/_kata",
    }  # fmt: skip
    os.makedirs(f"{prefix.prefix}/share/kata/3f0c")
    assert "edited" not in prefix.make("uninstall")
    assert prefix.files() == set()
    assert not os.path.exists(f"{prefix.root}{prefix.prefix}")
    assert not os.path.exists(f"{prefix.root}/etc/kata-containers")


def test_the_installed_programs_work(prefix):
    """The installed programs run the installed package."""
    prefix.make("install")
    assert prefix.run("kata", "--version").stdout.startswith("kata version ")
    for program, says in (
        ("kata-runtime", "container does not exist"),
        ("containerd-shim-kata-v2", "containerd-shim-kata-v2: "),
    ):
        assert prefix.run(program, "--version").stdout.startswith(f"{program} version ")
        refused = prefix.run(program, "state", "x")
        assert refused.returncode == 1
        assert says in refused.stderr
    assert prefix.run("kata", "guest", "ls").returncode == 0


def test_the_package_is_compiled(prefix):
    """Every installed source has byte code that is not compared with it."""
    prefix.make("install")
    sources = []
    for directory, _, names in os.walk(f"{prefix.prefix}/lib/kata/kata"):
        sources += [f"{directory}/{name}" for name in names if name.endswith(".py")]
    assert len(sources) > 50
    for source in sources:
        directory, name = os.path.split(source)
        compiled = [
            n for n in os.listdir(f"{directory}/__pycache__") if n.startswith(f"{name[:-3]}.")
        ]
        with open(f"{directory}/__pycache__/{compiled[0]}", "rb") as file:
            assert file.read(8)[4:] == b"\1\0\0\0", source


def test_installing_again_changes_nothing(prefix):
    """A second installation has the same files, and no second configuration."""
    prefix.make("install")
    before = prefix.files()
    prefix.make("install")
    assert prefix.files() == before


def test_an_edited_configuration_is_kept(prefix):
    """An edited configuration survives installing (the new one beside it) and uninstalling."""
    prefix.make("install")
    configure(prefix, "\n[factory]\nenable_template = false\n")
    kept = f'"{prefix.root}/{CONFIGURATION}" was edited and is kept'
    assert f"{kept}; the new one is beside it" in prefix.make("install")
    assert f"{CONFIGURATION}.new" in prefix.files()
    assert kept in prefix.make("uninstall")
    assert prefix.files() == {CONFIGURATION}
    with open(f"{prefix.root}/{CONFIGURATION}", encoding="utf-8") as file:
        assert "enable_template = false\n" in file.read()


def test_a_foreign_configuration_is_kept(prefix):
    """A configuration that was there before the first installation is somebody's."""
    os.makedirs(f"{prefix.root}/etc/kata-containers")
    configure(prefix, "# mine\n")
    assert "was edited and is kept" in prefix.make("install")
    assert "was edited and is kept" in prefix.make("uninstall")
    assert prefix.files() == {CONFIGURATION}


def test_files_for_engines_are_told(prefix):
    """What tells an engine of the runtime is named, unless it was taken away before."""
    prefix.make("install")
    words = ("install", "podman", "--destdir", prefix.root, "--engine-version", "4.3.1")
    assert prefix.run("kata", *words).returncode == 0
    [path] = [f for f in prefix.files() if f.endswith("50-kata.conf")]
    with open(f"{prefix.root}/{path}", encoding="utf-8") as file:
        assert f'["{prefix.prefix}/bin/kata-runtime"]' in file.read()
    assert f'"{prefix.root}/{path}" still tells an engine' in prefix.make("uninstall")


def test_uninstalling_nothing_is_an_error(prefix):
    """Where nothing is installed, uninstalling says so and removes nothing."""
    with pytest.raises(subprocess.CalledProcessError):
        prefix.make("uninstall")
