"""The machine that engines are configured on: its files, its programs, ours.

The one rule: nothing is written here. With ``destdir`` it is the tree of another machine (an image,
a node's root), and paths are as they will be on that machine.
"""

from __future__ import annotations

import glob
import os
import re
import subprocess
import sys

from kata.errors import HostError, InvalidInput, NotFound

SEARCHED = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")
_SECONDS = 20  # an engine answers in a tenth of one


class Host:
    """A machine, seen below ``destdir`` ("" for the one we are on).

    ``version`` is what the engine's version is said to be, instead of asking it; ``programs`` the
    directory of our programs, instead of that of the one that runs. Raises ``NotFound``.
    """

    def __init__(self, destdir: str = "", version: str = "", programs: str = "") -> None:
        self.destdir = os.path.abspath(destdir).rstrip("/") if destdir else ""
        if self.destdir and not os.path.isdir(self.destdir):
            raise NotFound(f'"{destdir}" is not a directory', hint="--destdir names one")
        self._version = version
        self._programs = programs

    def place(self, path: str) -> str:
        """Where a path of the machine is."""
        return f"{self.destdir}{path}"

    def read(self, path: str) -> str | None:
        """A file's text; None if there is none. Raises ``HostError`` if it cannot be read."""
        try:
            with open(self.place(path), encoding="utf-8") as file:
                return file.read()
        except FileNotFoundError:
            return None
        except UnicodeDecodeError:
            raise HostError(f'cannot read "{self.place(path)}"', why="it is not UTF-8") from None
        except OSError as error:
            raise HostError(
                f'cannot read "{self.place(path)}"', why=error.strerror or "",
                hint="run it as root" if error.errno in (1, 13) else "",
            ) from None  # fmt: skip

    def matching(self, pattern: str) -> list[str]:
        """The paths of the machine that match a pattern, in order."""
        found = glob.glob(f"{glob.escape(self.destdir)}{pattern}")
        return sorted(path.removeprefix(self.destdir) for path in found)

    def program(self, name: str) -> str:
        """The path of one of our programs, as it is on the machine.

        They stand beside the one that runs; below ``destdir``, if it runs from there.
        """
        directory = self._programs or os.path.dirname(os.path.realpath(sys.argv[0]))
        if self.destdir and f"{directory}/".startswith(f"{self.destdir}/"):
            directory = directory.removeprefix(self.destdir)
        return f"{directory}/{name}"

    def version(self, engine: str) -> tuple[int, ...]:
        """The version of an engine on the machine, two numbers or more.

        Raises ``HostError`` if it is not installed or does not say.
        """
        if self._version:
            return _numbers(self._version)
        path = next((f"{d}/{engine}" for d in SEARCHED if self._is_program(f"{d}/{engine}")), "")
        if not path:
            raise HostError(
                f"{engine} is not installed" + (f' below "{self.destdir}"' if self.destdir else ""),
                why=f"no program of this name in {' '.join(SEARCHED)}",
                hint="install it first, or say which version will be there: --engine-version",
            )
        argv = ["chroot", self.destdir, path] if self.destdir else [path]
        try:
            done = subprocess.run(
                [*argv, "--version"], capture_output=True, text=True, stdin=subprocess.DEVNULL,
                timeout=_SECONDS, check=True,
            )  # fmt: skip
            return _numbers(done.stdout)
        except (OSError, subprocess.SubprocessError, InvalidInput) as error:
            raise HostError(
                f'cannot learn the version of "{self.place(path)}"', why=str(error),
                hint="say it: --engine-version",
            ) from None  # fmt: skip

    def _is_program(self, path: str) -> bool:
        """Whether it is there to be executed; links are those of the machine."""
        place = self.place(path)
        return os.access(place, os.X_OK) or (bool(self.destdir) and os.path.islink(place))


def _numbers(text: str) -> tuple[int, ...]:
    found = re.search(r"(\d+)\.(\d+)(?:\.(\d+))?", text)
    if not found:
        raise InvalidInput(
            f'invalid version "{text.strip()[:80]}"', why='must be numbers with dots, as in "1.7.0"'
        )
    return tuple(int(part) for part in found.groups() if part)
