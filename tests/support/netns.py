"""Network namespaces for tests: made here, gone with their descriptors.

The one rule: no link is ever made in the namespace of the tests themselves.
"""

from __future__ import annotations

import json
import os
import subprocess
import time

from kata.linux.namespaces import Inside, new_network
from support.host import need_tool


class Namespace:
    """A network namespace by descriptor."""

    def __init__(self) -> None:
        need_tool("ip")
        self.fd = new_network()
        self.path = f"/proc/{os.getpid()}/fd/{self.fd}"

    def __call__(self, *argv: str, check: bool = True) -> str:
        """Run a program inside; its output, errors included."""
        with Inside(self.fd):
            done = subprocess.run(
                argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL
            )
        out = done.stdout.decode(errors="replace")
        assert not check or done.returncode == 0, f"{argv} ended with {done.returncode}: {out}"
        return out

    def ip(self, line: str) -> str:
        """Run ``ip`` with these words."""
        return self("ip", *line.split())

    def json(self, line: str):
        """What ``ip`` or ``tc`` prints as JSON."""
        program, *words = line.split()
        return json.loads(self(program, "-j", "-d", *words) or "[]")

    def links(self) -> dict[str, dict]:
        """The links by name."""
        return {link["ifname"]: link for link in self.json("ip link show")}

    def state(self):
        """Links and queueing disciplines: what nobody may leave behind."""
        links = sorted((n, l["mtu"], l.get("address", "")) for n, l in self.links().items())
        qdiscs = sorted((q["dev"], q["kind"]) for q in self.json("tc qdisc show"))
        return links, qdiscs

    def wire(self, name: str, other: Namespace, far: str, more: str = "") -> None:
        """A pair of veth links, one end here, the other there; both down."""
        self.ip(f"link add {name} {more} type veth peer name {far} {more} netns {other.path}")

    def close(self) -> None:
        """Let it go: with the last descriptor all that is in it goes."""
        os.close(self.fd)


def until(condition, seconds: float = 10.0, what: str = "it"):
    """Wait until something is so; its value."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"{what} did not come about"
        time.sleep(0.01)
    return value
