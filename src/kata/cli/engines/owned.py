"""Files of ours among an engine's: written in one step, remembered, removed if still ours.

The one rule: a file is ours if it is as we wrote it, which a digest in a file of our own says; what
somebody has edited since is neither overwritten nor removed.
"""

from __future__ import annotations

import hashlib
import json
import os

from kata.errors import AlreadyExists, HostError, WrongState

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from kata.cli.engines.host import Host
    from kata.cli.engines.plan import Plan

STATE = "/var/lib/kata/engines.json"


class Owned:
    """What we wrote on a machine: for each engine the file, its digest, the directories made."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._kept: dict[str, dict[str, Any]] = {}
        text = host.read(STATE)
        if text is None:
            return
        try:
            for engine, kept in json.loads(text).items():
                known = {"path": kept["path"], "sha256": kept["sha256"], "made": kept["made"]}
                self._kept[engine] = known
        except (ValueError, TypeError, KeyError, AttributeError):
            raise HostError(
                f'cannot read "{host.place(STATE)}"', why="it is not as it was written",
                hint="remove it; files of ours are then somebody's",
            ) from None  # fmt: skip

    def path(self, engine: str) -> str:
        """The file we wrote for an engine; "" if none."""
        return self._kept[engine]["path"] if engine in self._kept else ""

    def has(self, path: str) -> bool:
        """Whether we wrote a file here, edited since or not; one that is gone is nobody's."""
        known = any(kept["path"] == path for kept in self._kept.values())
        return known and self._host.read(path) is not None

    def edited(self, engine: str) -> bool:
        """Whether our file for an engine is there, and is not as we wrote it."""
        text = self._host.read(self.path(engine))
        return text is not None and _digest(text) != self._kept[engine]["sha256"]

    def check(self, plan: Plan) -> bool:
        """Whether the file of a plan is to be written; False if it is there already.

        Raises ``WrongState`` if ours was edited, ``AlreadyExists`` if the file is somebody's.
        """
        before = self.path(plan.engine)
        if before and self.edited(plan.engine):
            raise self._edited(plan.engine, "and is kept as it is")
        present = self._host.read(plan.path)
        if before != plan.path and present not in (None, plan.text):
            raise AlreadyExists(
                f'"{self._host.place(plan.path)}" exists already', why="somebody else wrote it",
                hint="move it away, and run it again",
            )  # fmt: skip
        return present != plan.text or before != plan.path

    def write(self, plan: Plan) -> None:
        """Put the file of a plan in its place, if it is not there.

        Raises what ``check`` does, and ``HostError`` if it cannot be written; then nothing has
        changed.
        """
        if not self.check(plan):
            return
        before, present = self.path(plan.engine), self._host.read(plan.path)
        if before and before != plan.path:
            self.remove(plan.engine)
        made = self._kept[plan.engine]["made"] if before == plan.path else []
        made = [*made, *self._directories(os.path.dirname(plan.path))]
        self._remember(plan, made)  # first: what is not there is no harm, what is unknown is
        if present != plan.text:
            self._replace(plan.path, plan.text)

    def remove(self, engine: str) -> str:
        """Remove our file for an engine, and the directories made for it; gives its path.

        "" if there is none. Raises ``WrongState`` if it was edited; then it stays.
        """
        path = self.path(engine)
        if not path:
            return ""
        if self.edited(engine):
            raise self._edited(engine, "and is left there")
        place = self._host.place(path)
        there = os.path.lexists(place)
        try:
            if there:
                os.unlink(place)
        except OSError as error:
            raise _failed("remove", place, error) from None
        made = self._kept.pop(engine)["made"]
        for directory in sorted(made, key=len, reverse=True):
            try:
                os.rmdir(self._host.place(directory))
            except OSError:
                pass  # something else is in it
        self._save()
        return path if there else ""

    def _edited(self, engine: str, what: str) -> WrongState:
        place = self._host.place(self.path(engine))
        return WrongState(
            f'"{place}" was edited since it was written, {what}',
            why=f'it differs from what "{self._host.place(STATE)}" remembers',
            hint="remove it, or what is in it of kata, by hand",
        )

    def _remember(self, plan: Plan, made: list[str]) -> None:
        known = {"path": plan.path, "sha256": _digest(plan.text), "made": made}
        self._kept[plan.engine] = known
        self._save()

    def _save(self) -> None:
        if self._kept:
            self._directories(os.path.dirname(STATE))
            self._replace(STATE, json.dumps(self._kept, indent=1) + "\n")
            return
        place = self._host.place(STATE)
        try:
            os.unlink(place)
            os.rmdir(os.path.dirname(place))
        except FileNotFoundError:
            pass
        except OSError as error:
            if os.path.lexists(place):
                raise _failed("remove", place, error) from None

    def _directories(self, path: str) -> list[str]:
        """Make a directory and those above it; gives those that were not there."""
        if os.path.isdir(self._host.place(path)):
            return []
        made = self._directories(os.path.dirname(path))
        try:
            os.mkdir(self._host.place(path), 0o755)
        except OSError as error:
            raise _failed("make", self._host.place(path), error) from None
        return [*made, path]

    def _replace(self, path: str, text: str) -> None:
        place = self._host.place(path)
        half = f"{place}.kata-{os.getpid()}"  # no engine reads a name like this
        try:
            fd = os.open(half, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
            with open(fd, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(fd)
            os.replace(half, place)
        except OSError as error:
            try:
                os.unlink(half)
            except OSError:
                pass
            raise _failed("write", place, error) from None


def _failed(verb: str, place: str, error: OSError) -> HostError:
    hint = "run it as root" if error.errno in (1, 13) else ""
    return HostError(f'cannot {verb} "{place}"', why=error.strerror or "", hint=hint)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
