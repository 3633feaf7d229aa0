"""A runtime's command line, called as engines call it, and what it claims to support.

The one rule: nothing here knows how a runtime works; it is known by its words, codes and log alone.
"""

from __future__ import annotations

import functools
import json
import os
import re
import subprocess
from dataclasses import dataclass, field
from itertools import count

from conformance.differences import WORDING

TIMEOUT = 60  # seconds for one call

# What not every runtime claims: the least version of the specification of a runtime that has
# "features" (or a test of these), and the least version of runc and of crun; None is never.
NEVER = (999,)
RULES: dict[str, tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]] = {
    "idmap": ((1, 1), (1, 2), (1, 8, 5)),
    "domainname": ((1, 1), (1, 2), (1, 7)),
    "scheduler": ((1, 1), (1, 2), (1, 8, 5)),
    "ioPriority": ((1, 1), (1, 2), (1, 8, 6)),
    "personality": ((1, 1), (1, 2), (0, 1)),
    "execCPUAffinity": ((1, 2, 1), (1, 3), NEVER),
    "time namespaces": ((1, 1), (1, 2), (1, 8, 4)),
    "rro": ((1, 1), (1, 1), (1, 8)),
    "seccomp flags": ((1, 1), (1, 2), (0, 1)),
}
# Options and verbs are claimed by the help text of a verb (none: the runtime's own)
OPTIONS = {
    "events": "", "features": "",
    "pidfd-socket": "create", "keep": "run", "no-new-keyring": "create",
    "additional-gids": "exec", "cgroup": "exec", "rootless": "spec",
}  # fmt: skip


@dataclass
class Result:
    """What a call gave: code, output, and the lines of its log."""

    words: tuple[str, ...]
    code: int
    out: str
    err: str
    log: list[dict[str, str]] = field(default_factory=list)
    wording: dict[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def message(self) -> str:
        """The last error, from the log as engines read it, or else from standard error."""
        return self.logged or (self.err.strip().splitlines() or [""])[-1]

    @property
    def logged(self) -> str:
        """The last error in the log."""
        errors = [line.get("msg", "") for line in self.log if line.get("level") == "error"]
        return errors[-1] if errors else ""

    def json(self):
        """The output as JSON."""
        return json.loads(self.out)

    def ok(self) -> Result:
        """Itself, when the call succeeded."""
        assert self.code == 0, (
            f"{' '.join(self.words)}: exit {self.code}: {self.message or self.err}"
        )
        return self

    def refused(self, *words: str) -> Result:
        """Itself, when the call failed with a message that has one of these words of runc's."""
        assert self.code != 0, f"{' '.join(self.words)} succeeded: {self.out}"
        text = self.message.lower()
        assert text, "nothing was said"
        known = [*words, *(other for word in words for other in self.wording.get(word, ()))]
        assert not words or any(word.lower() in text for word in known), self.message
        return self


class Runtime:
    """A program with a root of its own."""

    def __init__(self, path: str, directory: str) -> None:
        self.path = path
        self.directory = directory
        self.root = f"{directory}/root"
        self.logs = f"{directory}/logs"
        os.makedirs(self.logs)
        self._number = count(1)
        self.kind = ""
        first = self("--version", bare=True).out.partition("\n")[0].lower()
        names = [name for name in ("kata", "crun", "runc") if name in first]
        self.kind = names[0] if names else "other"
        self.version = numbers(first)

    def words(self, *words: str, log: str = "", root: str = "") -> list[str]:
        """A command line with the global options of an engine."""
        log = log or f"{self.logs}/{next(self._number)}"
        return [
            self.path, "--root", root or self.root, "--log", log, "--log-format", "json", *words
        ]  # fmt: skip

    def __call__(self, *words: str, stdin="", bare=False, root="", cwd=None, env=None) -> Result:
        """Call it and wait; ``bare`` leaves the global options out."""
        log = f"{self.logs}/{next(self._number)}"
        line = [self.path, *words] if bare else self.words(*words, log=log, root=root)
        # what a call leaves running may hold its output open: the call's end is its exit
        with open(f"{log}.out", "wb+") as out, open(f"{log}.err", "wb+") as err:
            process = subprocess.Popen(
                line, stdin=subprocess.PIPE, stdout=out, stderr=err, cwd=cwd, env=env
            )
            with process.stdin:
                try:
                    process.stdin.write(stdin.encode())
                except BrokenPipeError:
                    pass
            code = ended(process)
            out.seek(0)
            err.seek(0)
            return self.result(words, code, decoded(out.read()), decoded(err.read()), log)

    def result(self, words: tuple[str, ...], code: int, out: str, err: str, log: str) -> Result:
        """What a call gave, with the words this runtime has for things."""
        return Result(words, code, out, err, read_log(log), WORDING.get(self.kind, {}))

    @functools.cached_property
    def features(self) -> dict:
        """What "features" says, or nothing."""
        done = self("features", bare=True)
        return done.json() if done.code == 0 else {}

    def help(self, verb: str = "") -> str:
        """The help text of a verb."""
        if verb not in self._help:
            done = self(*([verb] if verb else []), "--help", bare=True)
            self._help[verb] = done.out + done.err
        return self._help[verb]

    @functools.cached_property
    def _help(self) -> dict[str, str]:
        return {}

    def lacks(self, claim: str) -> str:
        """Why a claim does not hold; empty when it does."""
        if claim in OPTIONS:
            verb = OPTIONS[claim]
            found = re.search(rf"--{claim}\b" if verb else rf"\b{claim}\b", self.help(verb))
            return "" if found else f'its help does not name "{claim}"'
        specification, runc, crun = RULES[claim]
        if self.kind in ("runc", "crun"):
            least = {"runc": runc, "crun": crun}[self.kind]
            text = ".".join(map(str, least))
            why = "no version" if least == NEVER else f"{self.kind} from {text} on"
            return "" if self.version >= least else f"{claim}: {why} has it"
        most = str(self.features.get("ociVersionMax", ""))
        if numbers(most) >= specification:
            return ""
        return f'{claim}: not in the specification it claims ("{most}")'


def numbers(text: str) -> tuple[int, ...]:
    """The first version number of a text."""
    found = re.search(r"\d+(\.\d+)+", text)
    return tuple(int(part) for part in found[0].split(".")) if found else ()


def decoded(data: bytes) -> str:
    """Text, whatever the bytes are."""
    return data.decode(errors="replace")


def ended(process: subprocess.Popen) -> int:
    """The exit code of a call, which must come in time."""
    try:
        return process.wait(TIMEOUT)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        raise AssertionError(f"{process.args} did not end in {TIMEOUT} s") from None


def read_log(path: str) -> list[dict[str, str]]:
    """The lines of a JSON log."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return [json.loads(line) for line in file if line.startswith("{")]
    except OSError:
        return []
