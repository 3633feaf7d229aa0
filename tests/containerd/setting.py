"""Which runtimes are asked, and what each needs."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from support.host import lacks
from support.node import SHIM

if TYPE_CHECKING:
    import pytest

RUNTIMES = os.environ.get("KATA_TEST_RUNTIMES", "runc kata").split()


def ready(runtime: str, request: pytest.FixtureRequest) -> str:
    """A runtime's name, when all is there: ours needs its shim and a guest image."""
    if runtime != "runc":
        if not os.path.exists(SHIM):
            lacks(f'"{SHIM}"')
        request.getfixturevalue("prepared")
    return runtime
