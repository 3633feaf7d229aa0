"""What ``kata run`` asks of a ready sandbox: whether one fits, and the order to be its container.

Nothing here is loaded where nobody keeps a pool. The rule: what the order says is all of the
request; it is read back as the value that it was.
"""

from __future__ import annotations

from kata.machine.sizing import machine_memory, machine_vcpus, memory_for
from kata.oci.defaults import ContainerRequest, ProcessRequest, Resources
from kata.oci.options import Rlimit, Tmpfs, Volume
from kata.oci.pods import sizing
from kata.oci.users import User
from kata.runtime.machines import known_shape, ready
from kata.runtime.request import RunRequest
from kata.wire.record import fields

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from kata.config.settings import Config
    from kata.runtime.pool import Member

KIND = "run"
_KINDS = {
    kind.__name__: kind
    for kind in (
        RunRequest, ContainerRequest, ProcessRequest, Resources, Rlimit, Tmpfs, Volume, User,
    )
}  # fmt: skip
_TYPE, _BYTES = "", "bytes"


def fits(request: RunRequest, config: Config) -> bool:
    """Whether a machine as engines have it by default is what the request would get.

    Of its wired disks the last one has been used by the rehearsal. Raises ``InvalidInput`` for
    what no machine can be.
    """
    settings, memory = config.hypervisor, request.machine_memory
    memory = memory_for(memory) if request.memory_limited else memory
    return (
        request.template and config.factory.enable_template
        and machine_vcpus(request.machine_vcpus) == machine_vcpus(settings.default_vcpus)
        and machine_memory(memory) == machine_memory(settings.default_memory)
        and len(request.layers) < settings.block_slots
    )  # fmt: skip


def find(request: RunRequest, config: Config) -> Member | None:
    """A ready sandbox for a request, if there is one that fits."""
    if not fits(request, config):
        return None
    return ready(config, known_shape(sizing({}), config))


def describe(request: RunRequest) -> dict[str, Any]:
    """A request in what JSON knows."""
    plain: dict[str, Any] = _plain(request)
    return plain


def parse(described: dict[str, Any]) -> RunRequest:
    """What ``describe`` made of it."""
    request = _value(described)
    assert isinstance(request, RunRequest)
    return request


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return {_TYPE: _BYTES, _BYTES: value.decode("latin-1")}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if type(value).__name__ in _KINDS:
        named = {name: _plain(item) for name, item in fields(value).items()}
        return {_TYPE: type(value).__name__, **named}
    return value


def _value(plain: Any) -> Any:
    if isinstance(plain, list):
        return tuple(_value(item) for item in plain)
    if not isinstance(plain, dict):
        return plain
    if plain[_TYPE] == _BYTES:
        return plain[_BYTES].encode("latin-1")
    return _KINDS[plain[_TYPE]](**{n: _value(item) for n, item in plain.items() if n != _TYPE})
