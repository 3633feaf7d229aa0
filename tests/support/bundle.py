"""A container of ``kata-runtime``, made as an engine makes one, for tests that look at the host."""

from __future__ import annotations

import json
import os
import subprocess

from support import busybox
from support.source import CHECKOUT

RUNTIME = os.environ.get("KATA_TEST_RUNTIME", f"{CHECKOUT}/bin/kata-runtime")


class Bundle:
    """A bundle below a directory, and its container while the context lasts."""

    def __init__(self, directory: str, data: str, *args: str, **changes) -> None:
        self.path = f"{directory}/bundle"
        self._root = f"{directory}/root"
        self._data = data
        os.makedirs(self.path)
        busybox.make(f"{self.path}/rootfs")
        self.ok("spec", "--bundle", self.path)
        with open(f"{self.path}/config.json", encoding="utf-8") as file:
            spec = json.load(file)
        spec["process"].update(terminal=False, args=list(args))
        spec.update(changes)
        with open(f"{self.path}/config.json", "w", encoding="utf-8") as file:
            json.dump(spec, file)
        settings = self.settings = f"{directory}/engine.toml"
        with open(settings, "w", encoding="utf-8") as file:
            file.write(f'[runtime]\ndata_root = "{data}"\nstate_root = "{directory}/run"\n')
        self._env = {**os.environ, "KATA_CONFIG": settings}

    def __call__(self, *words: str, out=subprocess.PIPE) -> subprocess.CompletedProcess[str]:
        """Run a verb to its end; what outlives it writes to ``out``."""
        return subprocess.run(
            [RUNTIME, "--root", self._root, *words], stdout=out, stderr=out, text=True,
            stdin=subprocess.DEVNULL, env=getattr(self, "_env", None), timeout=120, check=False,
        )  # fmt: skip

    def ok(self, *words: str, out=subprocess.PIPE) -> str:
        """Run a verb that must succeed; its output."""
        done = self(*words, out=out)
        assert done.returncode == 0, f"{words}: {done.returncode}: {done.stderr}"
        return done.stdout

    def state(self):
        """What the runtime says of the container."""
        return json.loads(self.ok("state", "box"))

    def __enter__(self):
        # output to a file: a pipe would be held by what outlives create
        with open(f"{self.path}/out", "wb") as out:
            subprocess.run(
                [RUNTIME, "--root", self._root, "create", "--bundle", self.path, "box"],
                stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=self._env, timeout=180,
                check=True,
            )  # fmt: skip
        self.ok("start", "box")
        return self

    def __exit__(self, *_: object) -> None:
        pid = self.state()["pid"] if self("state", "box").returncode == 0 else 0
        self.ok("delete", "--force", "box")
        if pid:
            try:
                os.waitpid(pid, 0)  # it came to us, as it comes to an engine's monitor
            except ChildProcessError:
                pass
