"""Runtime options, as containerd writes them to the standard input of ``start``."""

from __future__ import annotations

from kata.errors import ProtocolError
from kata.wire.containerd_types import RuntimeOptions
from kata.wire.ttrpc import AnyMessage

_KIND = "runtimeoptions.v1.Options"


def config_path(data: bytes) -> str:
    """The configuration file that they name; empty if they are of another kind."""
    try:
        given = AnyMessage.decode(data)
        if given.type_url.rpartition("/")[2] != _KIND:
            return ""
        return RuntimeOptions.decode(given.value).config_path
    except ProtocolError:
        return ""
