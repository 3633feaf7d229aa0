"""``-info``: what containerd 2 asks of a runtime before it uses it."""

from __future__ import annotations

from kata.version import VERSION
from kata.wire.containerd_types import RuntimeInfo, RuntimeVersion

NAME = "io.containerd.kata.v2"


def info() -> bytes:
    """``containerd.types.RuntimeInfo``."""
    return RuntimeInfo(name=NAME, version=RuntimeVersion(version=VERSION)).encode()
