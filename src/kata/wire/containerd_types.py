"""Messages that containerd's APIs have in common, and the services a shim answers or calls.

Source: containerd's ``api/types`` (``mount.proto``, ``platform.proto``, ``metrics.proto``,
``introspection.proto``), ``google/protobuf/timestamp.proto``.
"""

from __future__ import annotations

from kata.wire.protobuf import Message, int32, int64, mapping, nested, repeated, string
from kata.wire.ttrpc import AnyMessage

TASK_SERVICES = ("containerd.task.v2.Task", "containerd.task.v3.Task")  # the same messages
SANDBOX_SERVICE = "containerd.runtime.sandbox.v1.Sandbox"
EVENTS_SERVICE = "containerd.services.events.ttrpc.v1.Events"
_BILLION = 1_000_000_000


class Timestamp(Message):
    """``google.protobuf.Timestamp``."""

    seconds: int = int64(1)
    nanos: int = int32(2)


def timestamp(ns: int) -> Timestamp | None:
    """A moment in nanoseconds since the epoch; 0 is none."""
    return Timestamp(seconds=ns // _BILLION, nanos=ns % _BILLION) if ns else None


def nanoseconds(moment: Timestamp | None) -> int:
    """The reverse of ``timestamp``."""
    return moment.seconds * _BILLION + moment.nanos if moment is not None else 0


class Mount(Message):
    """A mount of a root file system, as a snapshotter gives it."""

    type: str = string(1)
    source: str = string(2)
    target: str = string(3)
    options: list[str] = repeated(string(4))


class Platform(Message):
    """What programs run in the sandbox."""

    os: str = string(1)
    architecture: str = string(2)
    variant: str = string(3)
    os_version: str = string(4)


class Metric(Message):
    """Statistics of one thing at one moment."""

    timestamp: Timestamp | None = nested(Timestamp, 1)
    id: str = string(2)
    data: AnyMessage | None = nested(AnyMessage, 3)


class RuntimeVersion(Message):
    """Of a shim."""

    version: str = string(1)
    revision: str = string(2)


class RuntimeInfo(Message):
    """What ``-info`` answers on standard output (containerd 2)."""

    name: str = string(1)
    version: RuntimeVersion | None = nested(RuntimeVersion, 2)
    options: AnyMessage | None = nested(AnyMessage, 3)
    features: AnyMessage | None = nested(AnyMessage, 4)
    annotations: dict[str, str] = mapping(5)


class RuntimeOptions(Message):
    """``runtimeoptions.v1.Options``: what CRI passes on for runtimes other than runc."""

    type_url: str = string(1)
    config_path: str = string(2)


class Extension(Message):
    """Something more that a shim is given at its start."""

    value: AnyMessage | None = nested(AnyMessage, 1)


class BootstrapParams(Message):
    """``containerd.runtime.bootstrap.v1``: standard input of ``start`` from containerd 2.3 on.

    What flags and environment say too is left out.
    """

    instance_id: str = string(1)
    namespace: str = string(2)
    containerd_version: str = string(4)
    containerd_ttrpc_address: str = string(5)
    extensions: list[Extension] = repeated(nested(Extension, 8))
