#!/usr/bin/python3
"""Install pykata below a prefix, and take exactly that away again.

    install.py install|uninstall PREFIX [DESTDIR]

The one rule: what was installed is recorded in PREFIX/lib/kata/installed.json, files with digests
and the directories that were made; only that is removed, and a configuration that somebody edited
is neither overwritten nor removed.
With EXTRAS=no in the environment nothing is fetched from the network.
"""

from __future__ import annotations

import compileall
import hashlib
import json
import os
import py_compile
import shutil
import subprocess
import sys

CHECKOUT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PROGRAMS = {  # and how each begins: what a program does not need is not imported
    "kata": ("kata.cli.main", "enter(sys.argv[1:])"),
    "kata-runtime": ("kata.cli.runtime.quick", "enter(sys.argv[1:])"),
    "containerd-shim-kata-v2": ("kata.shim.main", "enter(sys.argv[1:])"),
}
SERVICE = "kata-factory.service"  # installed, and started by whoever wants it
CONFIGURATION = "/etc/kata-containers/configuration.toml"
RECORD = "installed.json"
ENGINES = "/var/lib/kata/engines.json"  # what kata install wrote into engines' directories
LAUNCHER = """\
#!/usr/bin/python3 -IS
import sys

sys.path.insert(0, "{library}")

from {module} import enter

{call}
"""


class Installation:
    """One prefix; paths are as they will be on the machine, ``destdir`` is only written below."""

    def __init__(self, prefix: str, destdir: str) -> None:
        self.prefix = prefix
        self.destdir = destdir
        self.library = f"{prefix}/lib/kata"
        self.guest = f"{prefix}/share/kata"
        self.digests: dict[str, str] = {}
        self.made: list[str] = []  # directories, outer ones first

    def place(self, path: str) -> str:
        """Where a path of the machine is written to."""
        return f"{self.destdir}{path}"

    def install(self) -> None:
        """Install everything but the guest image."""
        before = self.recorded()
        self.made = [path for path in before if path.endswith("/")]
        for directory in (self.library, self.guest):
            self.directory(os.path.dirname(directory))
        self.package()
        for program, (module, call) in PROGRAMS.items():
            text = LAUNCHER.format(library=self.library, module=module, call=call)
            self.write(f"{self.prefix}/bin/{program}", text.encode(), 0o755)
        for shell, path in (
            ("bash", f"{self.prefix}/share/bash-completion/completions/kata"),
            ("zsh", f"{self.prefix}/share/zsh/site-functions/_kata"),
        ):
            self.write(path, kata("completion", shell), 0o644)
        self.write(f"{self.prefix}/lib/systemd/system/{SERVICE}", self.service(), 0o644)
        self.configuration(before.get(CONFIGURATION, ""))
        self.extras()
        self.digests |= dict.fromkeys(self.made, "")
        with open(self.place(f"{self.library}/{RECORD}"), "w", encoding="utf-8") as file:
            json.dump(self.digests, file, indent=1)

    def package(self) -> None:
        """Our package, compiled so that no source is compared with its bytes at a start."""
        target = self.place(f"{self.library}/kata")
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(
            f"{CHECKOUT}/src/kata", target, ignore=shutil.ignore_patterns("__pycache__")
        )
        good = compileall.compile_dir(
            target, quiet=1, stripdir=target, prependdir=f"{self.library}/kata",
            invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
        )  # fmt: skip
        if not good:
            sys.exit("the package does not compile")

    def service(self) -> bytes:
        """The service manager's unit for the pool."""
        with open(f"{CHECKOUT}/packaging/systemd/{SERVICE}", encoding="utf-8") as file:
            return file.read().replace("{prefix}", self.prefix).encode()

    def extras(self) -> None:
        """The libraries that make tables nicer; everything works without them."""
        target = self.place(f"{self.library}/extras")
        shutil.rmtree(target, ignore_errors=True)
        if os.environ.get("EXTRAS") == "no":
            return
        try:
            subprocess.run(["/usr/bin/python3", "-m", "venv", target], check=True)
            subprocess.run(
                [f"{target}/bin/python", "-m", "pip", "install", "--quiet", "rich>=13"],
                check=True, env=os.environ | {"PIP_DISABLE_PIP_VERSION_CHECK": "1"},
            )  # fmt: skip
        except (OSError, subprocess.CalledProcessError):
            shutil.rmtree(target, ignore_errors=True)
            print("note: the library rich could not be installed; tables will be plain")

    def configuration(self, installed: str) -> None:
        """The commented defaults, unless somebody edited the file: then beside it."""
        make = "from kata.config.render import toml; print(toml(), end='')"
        program = f"import sys; sys.path.insert(0, {CHECKOUT + '/src'!r}); {make}"
        argv = ["/usr/bin/python3", "-IS", "-c", program]
        data = subprocess.run(argv, stdout=subprocess.PIPE, check=True).stdout
        present = digest(self.place(CONFIGURATION))
        self.digests[CONFIGURATION] = hashlib.sha256(data).hexdigest()
        if present in ("", installed, self.digests[CONFIGURATION]):
            self.write(CONFIGURATION, data, 0o644)
            return
        self.digests[CONFIGURATION] = installed
        self.write(f"{CONFIGURATION}.new", data, 0o644)
        kept = self.place(CONFIGURATION)
        print(f'note: "{kept}" was edited and is kept; the new one is beside it, as .new')

    def write(self, path: str, data: bytes, mode: int) -> None:
        """Write a file in one step, and record it."""
        target = self.place(path)
        self.directory(os.path.dirname(path))
        with open(f"{target}.writing", "wb") as file:
            file.write(data)
        os.chmod(f"{target}.writing", mode)
        os.replace(f"{target}.writing", target)
        self.digests[path] = hashlib.sha256(data).hexdigest()

    def directory(self, path: str) -> None:
        """Make a directory with all above it, and record those that were not there."""
        if os.path.isdir(self.place(path)):
            return
        self.directory(os.path.dirname(path))
        os.mkdir(self.place(path))
        if f"{path}/" not in self.made:
            self.made.append(f"{path}/")

    def recorded(self) -> dict[str, str]:
        """The files of the installation that is there, with their digests."""
        try:
            with open(self.place(f"{self.library}/{RECORD}"), encoding="utf-8") as file:
                return dict(json.load(file))
        except FileNotFoundError:
            return {}

    def engines(self) -> list[str]:
        """The files that kata install wrote and nobody has undone."""
        try:
            with open(self.place(ENGINES), encoding="utf-8") as file:
                return [self.place(kept["path"]) for kept in json.load(file).values()]
        except FileNotFoundError:
            return []

    def uninstall(self) -> None:
        """Remove what ``install`` and the guest image builder put below the prefix."""
        recorded = self.recorded()
        if not recorded:
            sys.exit(f'nothing is installed below "{self.place(self.prefix)}"')
        for path in self.engines():
            print(f'note: "{path}" still tells an engine of the runtime; remove it too')
        directories = [path for path in recorded if path.endswith("/")]
        for path, known in recorded.items():
            if path in directories:
                continue
            target = self.place(path)
            if path == CONFIGURATION and digest(target) not in ("", known):
                print(f'note: "{target}" was edited and is kept')
            elif os.path.lexists(target):
                os.unlink(target)
        for directory in (self.library, self.guest):
            shutil.rmtree(self.place(directory), ignore_errors=True)
        for path in sorted(directories, key=len, reverse=True):
            try:
                os.rmdir(self.place(path))
            except OSError:
                pass  # something else is in it


def kata(*arguments: str) -> bytes:
    """What the command of this checkout prints."""
    argv = [f"{CHECKOUT}/bin/kata", *arguments]
    return subprocess.run(argv, stdout=subprocess.PIPE, check=True).stdout


def digest(path: str) -> str:
    """The SHA-256 of a file; empty if there is none."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return ""


def main(arguments: list[str]) -> None:
    """Do what the command line says."""
    if len(arguments) not in (2, 3) or arguments[0] not in ("install", "uninstall"):
        sys.exit("usage: install.py install|uninstall PREFIX [DESTDIR]")
    action, prefix, destdir = [*arguments, ""][:3]
    if not prefix.startswith("/"):
        sys.exit("the prefix must be an absolute path")
    installation = Installation(prefix.rstrip("/"), destdir.rstrip("/"))
    if action == "install":
        installation.install()
    else:
        installation.uninstall()


if __name__ == "__main__":
    main(sys.argv[1:])
