"""``kata version``: the versions of what a container would run with."""

from __future__ import annotations

import sys

from kata.cli.output import show_facts
from kata.version import VERSION

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from kata.cli.parse import Options


def show_short() -> int:
    """``kata --version``."""
    print(f"kata version {VERSION}")
    return 0


def run(options: Options) -> int:
    """Print versions."""
    show_facts(options.format, versions())
    return 0


def versions() -> dict[str, Any]:
    """Versions of the product and of the interpreter, and the contract with the agent."""
    from kata.wire.agent_api import api_hash

    return {
        "kata": VERSION,
        "agent_api": api_hash(),
        "python": ".".join(map(str, sys.version_info[:3])),
        "python_program": sys.executable,
    }
