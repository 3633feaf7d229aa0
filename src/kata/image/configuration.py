"""Manifests and configurations of images: which one is meant, and what of it we believe.

The one rule: every field comes from a stranger: its kind is checked here, and an unknown media
type is refused by name. Sources: OCI image-spec v1.1 (image-index, manifest, config), Docker's
image manifest version 2, schema 2.
"""

from __future__ import annotations

import os

from kata.errors import ImageError, Unsupported
from kata.image.reference import check_digest
from kata.wire import quickjson
from kata.wire.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_OCI, _DOCKER = "application/vnd.oci.image.", "application/vnd.docker."
INDEXES = (_OCI + "index.v1+json", _DOCKER + "distribution.manifest.list.v2+json")
MANIFESTS = (_OCI + "manifest.v1+json", _DOCKER + "distribution.manifest.v2+json")
_CONFIGS = (_OCI + "config.v1+json", _DOCKER + "container.image.v1+json")
_LAYERS = (
    _OCI + "layer.v1.tar", _OCI + "layer.v1.tar+gzip", _OCI + "layer.v1.tar+zstd",
    _DOCKER + "image.rootfs.diff.tar", _DOCKER + "image.rootfs.diff.tar.gzip",
    _DOCKER + "image.rootfs.diff.tar.zstd",
)  # fmt: skip
_ARCHITECTURES = {
    "x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386", "ppc64le": "ppc64le",
    "s390x": "s390x", "riscv64": "riscv64", "loongarch64": "loong64",
}  # fmt: skip
_MOST_LAYERS = 500


@record
class Blob:
    """A blob by what it must be: digest (hexadecimal), size in bytes, media type."""

    digest: str
    size: int
    media_type: str


@record
class Manifest:
    """An image's manifest: its own digest, its configuration, its layers, lowest first."""

    digest: str
    config: Blob
    layers: tuple[Blob, ...]


@record
class Configuration:
    """What of an image's configuration is used; ``diff_ids`` are hexadecimal digests."""

    created: str = ""
    architecture: str = ""
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    user: str = ""
    working_dir: str = ""
    volumes: tuple[str, ...] = ()
    stop_signal: str = ""
    labels: tuple[tuple[str, str], ...] = ()
    exposed_ports: tuple[str, ...] = ()
    diff_ids: tuple[str, ...] = ()


def host_architecture() -> str:
    """The machine's architecture, in Go's words, which images use."""
    machine = os.uname().machine
    return _ARCHITECTURES.get(machine, machine)


def document(data: bytes, what: str) -> dict[str, Any]:
    """A JSON object. Raises ``ImageError``."""
    try:
        value = quickjson.loads(data)
    except ValueError as error:
        raise ImageError(f"the {what} of the image is not JSON", why=str(error)[:200]) from None
    if type(value) is not dict:
        raise ImageError(f"the {what} of the image is not a JSON object")
    return value


def choose(index: dict[str, Any], tag: str) -> Blob:
    """The manifest (or further index) that an index holds for this host.

    A ``tag`` must be the annotation ``org.opencontainers.image.ref.name``. Raises ``ImageError``.
    """
    listed = [d for d in _list(index, "manifests", "index") if type(d) is dict]
    if tag:
        listed = [d for d in listed if _tag(d) == tag]
        if not listed:
            tags = filter(None, map(_tag, _list(index, "manifests", "index")))
            why = f"it has: {', '.join(sorted(tags)) or 'no names'}"
            raise ImageError(f'the layout has no image "{tag}"', why=why)
    here = [d for d in listed if _fits(d)]
    exact = [d for d in here if _platform(d)] or here
    if not exact:
        known = ", ".join(dict.fromkeys(_platform(d) or "unknown" for d in listed))
        wanted = f"linux/{host_architecture()}"
        why = f"it is for {known or 'none'}"
        raise ImageError(f'the image is not there for "{wanted}"', why=why)
    if len(exact) > 1 and not tag and any(map(_tag, exact)):
        known = ", ".join(sorted(filter(None, map(_tag, exact))))
        raise ImageError("the layout holds several images", why=f"name one of: {known}")
    return _blob(exact[0], "index")


def _tag(descriptor: Any) -> str:
    annotations = descriptor.get("annotations") if type(descriptor) is dict else None
    name = annotations.get("org.opencontainers.image.ref.name") if annotations else None
    return name if type(name) is str else ""


def _platform(descriptor: dict[str, Any]) -> str:
    platform = descriptor.get("platform")
    if type(platform) is not dict:
        return ""
    return f"{platform.get('os')}/{platform.get('architecture')}"[:100]


def _fits(descriptor: dict[str, Any]) -> bool:
    if descriptor.get("mediaType") not in INDEXES + MANIFESTS:
        return False
    return _platform(descriptor) in ("", f"linux/{host_architecture()}")


def manifest(data: bytes, digest: str) -> Manifest:
    """An image manifest. Raises ``ImageError``, ``Unsupported`` for kinds that are no image."""
    raw = document(data, "manifest")
    kind = raw.get("mediaType", MANIFESTS[0])
    if raw.get("schemaVersion") == 1:
        raise Unsupported(
            "the image has a manifest of version 1", hint="push it again with any current tool"
        )
    if raw.get("schemaVersion") != 2 or kind not in MANIFESTS:
        raise Unsupported(f'unknown kind of manifest "{str(kind)[:100]}"')
    config = _blob(raw.get("config"), "manifest")
    if config.media_type not in _CONFIGS:
        raise Unsupported(f'no image of a container but "{config.media_type}"')
    layers = tuple(_blob(each, "manifest") for each in _list(raw, "layers", "manifest"))
    if len(layers) > _MOST_LAYERS:
        raise ImageError(f"the image has {len(layers)} layers", why=f"{_MOST_LAYERS} are allowed")
    for layer in layers:
        if layer.media_type not in _LAYERS:
            raise Unsupported(f'unknown kind of layer "{layer.media_type}"')
    return Manifest(digest, config, layers)


def _blob(raw: Any, what: str) -> Blob:
    if type(raw) is not dict or type(raw.get("size")) is not int or raw["size"] < 0:
        raise ImageError(f"the {what} of the image has a bad descriptor")
    kind = raw.get("mediaType")
    digest = check_digest(str(raw.get("digest")), what)
    return Blob(digest, raw["size"], str(kind)[:200])


def configuration(data: bytes) -> Configuration:
    """An image's configuration. Raises ``ImageError``; an image for another machine is one too."""
    raw = document(data, "configuration")
    architecture, system = raw.get("architecture") or "", raw.get("os") or "linux"
    if system != "linux" or architecture not in ("", host_architecture()):
        raise ImageError(
            f'the image is for "{str(system)[:50]}/{str(architecture)[:50]}"',
            why=f'this host runs "linux/{host_architecture()}"',
        )
    inner = raw.get("config") or {}
    rootfs = raw.get("rootfs")
    if type(inner) is not dict or type(rootfs) is not dict:
        raise ImageError("the configuration of the image lacks its parts")
    diff_ids = _strings(rootfs, "diff_ids")
    return Configuration(
        created=_string(raw, "created"),
        architecture=architecture,
        entrypoint=_strings(inner, "Entrypoint"),
        cmd=_strings(inner, "Cmd"),
        env=_strings(inner, "Env"),
        user=_string(inner, "User"),
        working_dir=_string(inner, "WorkingDir"),
        volumes=_keys(inner, "Volumes"),
        stop_signal=_string(inner, "StopSignal"),
        labels=_pairs(inner, "Labels"),
        exposed_ports=_keys(inner, "ExposedPorts"),
        diff_ids=tuple(check_digest(each, "diff_ids") for each in diff_ids),
    )


def _bad(name: str, wanted: str) -> ImageError:
    return ImageError(f'the configuration of the image has a bad "{name}"', why=f"not {wanted}")


def _string(raw: dict[str, Any], name: str) -> str:
    value = raw.get(name)
    if value is None:
        return ""
    if type(value) is not str or "\0" in value:
        raise _bad(name, "a string")
    return value


def _strings(raw: dict[str, Any], name: str) -> tuple[str, ...]:
    value = raw.get(name)
    if value is None:
        return ()
    if type(value) is not list or any(type(v) is not str or "\0" in v for v in value):
        raise _bad(name, "an array of strings")
    return tuple(value)


def _keys(raw: dict[str, Any], name: str) -> tuple[str, ...]:
    value = raw.get(name)
    if value is None:
        return ()
    if type(value) is not dict or any("\0" in key for key in value):
        raise _bad(name, "an object")
    return tuple(sorted(value))


def _pairs(raw: dict[str, Any], name: str) -> tuple[tuple[str, str], ...]:
    value = raw.get(name)
    if value is None:
        return ()
    if type(value) is not dict or any(type(v) is not str for v in value.values()):
        raise _bad(name, "an object of strings")
    return tuple(sorted(value.items()))


def _list(raw: dict[str, Any], name: str, what: str) -> list[Any]:
    value = raw.get(name)
    if type(value) is not list:
        raise ImageError(f'the {what} of the image has no "{name}"')
    return value
