"""Docker: ``daemon.json``, of which there is one, without comments and without drop-ins."""

from __future__ import annotations

import json

from kata.cli.engines.plan import ByHand, Plan
from kata.errors import InvalidInput

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from kata.cli.engines.host import Host

PATH = "/etc/docker/daemon.json"


def plan(host: Host, *, ours: bool) -> Plan:
    """The runtime ``kata``; ``ours`` if the file is. Raises ``HostError``, ``ByHand``."""
    host.version("dockerd")
    runtime = host.program("kata-runtime")
    then = "docker run --runtime kata --rm debian:12 uname -r"
    present = None if ours else host.read(PATH)
    if present is not None:
        settings = _settings(present, host.place(PATH))
        runtimes = settings.get("runtimes")
        known = runtimes.get("kata") if isinstance(runtimes, dict) else None
        if isinstance(known, dict) and known.get("path") == runtime:
            return Plan("docker", said=f'"{host.place(PATH)}" has the runtime already', then=then)
        if present != text(runtime):
            merged = settings | {"runtimes": {**(runtimes or {}), **_runtimes(runtime)}}
            raise ByHand(
                "Docker has a configuration of its own",
                why=f'"{host.place(PATH)}" is not ours, and JSON files cannot be added to',
                path=host.place(PATH), lines=_dumps({"runtimes": merged["runtimes"]}),
            )  # fmt: skip
    return Plan("docker", PATH, text(runtime), restart="systemctl restart docker", then=then)


def text(runtime: str) -> str:
    """The file, where there was none."""
    return _dumps({"runtimes": _runtimes(runtime)})


def _runtimes(runtime: str) -> dict[str, Any]:
    return {"kata": {"path": runtime}}


def _settings(present: str, path: str) -> dict[str, Any]:
    try:
        found = json.loads(present) if present.strip() else {}
    except ValueError as error:
        raise InvalidInput(f'cannot read "{path}"', why=f"not JSON: {error}") from None
    if not isinstance(found, dict):
        raise InvalidInput(f'cannot read "{path}"', why="not an object")
    return found


def _dumps(value: Any) -> str:
    return json.dumps(value, indent=4) + "\n"
