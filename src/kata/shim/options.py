"""Runtime options, as containerd writes them to the standard input of ``start``.

Until containerd 2.2 they are there alone, as ``Any``; later among the extensions of
``BootstrapParams``. Both begin with a text, and only a type says which it is.
"""

from __future__ import annotations

from kata.errors import ProtocolError
from kata.wire.containerd_types import BootstrapParams, RuntimeOptions
from kata.wire.ttrpc import AnyMessage

_KIND = "runtimeoptions.v1.Options"


def config_path(data: bytes) -> str:
    """The configuration file that they name; empty if they are of another kind."""
    for given in (*_alone(data), *_among_others(data)):
        if given.type_url.rpartition("/")[2] == _KIND:
            try:
                return RuntimeOptions.decode(given.value).config_path
            except ProtocolError:
                continue
    return ""


def _alone(data: bytes) -> list[AnyMessage]:
    try:
        return [AnyMessage.decode(data)]
    except ProtocolError:
        return []


def _among_others(data: bytes) -> list[AnyMessage]:
    try:
        extensions = BootstrapParams.decode(data).extensions
    except ProtocolError:
        return []
    return [extension.value for extension in extensions if extension.value is not None]
