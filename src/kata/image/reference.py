"""What a person calls an image: transports, and names made whole as Docker makes them.

The one rule: pure text, no file is looked at. A whole name is ``host/path:tag`` (and, when a
digest was given, ``host/path@sha256:…``). Grammar: the distribution project's reference package.
"""

from __future__ import annotations

from kata.errors import ImageError, InvalidInput
from kata.wire.record import record

LAYOUT, REGISTRY = "oci", "docker"
ARCHIVES = ("oci-archive", "docker-archive")
TRANSPORTS = (
    LAYOUT, REGISTRY, *ARCHIVES, "containers-storage", "dir", "docker-daemon", "ostree", "sif",
)  # fmt: skip
_LOWER = frozenset("abcdefghijklmnopqrstuvwxyz0123456789")
_WORD = _LOWER | frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZ_")
_HEX = frozenset("0123456789abcdef")
_HOST = "docker.io"
_LONGEST_NAME, _LONGEST_TAG = 255, 128


@record
class Reference:
    """Where an image is: its transport and what follows the colon; ``name`` for a registry's."""

    transport: str
    rest: str
    name: str = ""

    def __str__(self) -> str:
        slashes = "//" if self.transport == REGISTRY else ""
        return f"{self.transport}:{slashes}{self.rest}"


def parse(text: str) -> Reference:
    """A reference as typed; a plain one means a registry's. Raises ``InvalidInput``."""
    transport, colon, rest = text.partition(":")
    if not colon or transport not in TRANSPORTS:
        whole = normalize(text)
        return Reference(REGISTRY, whole, whole)
    if transport == REGISTRY:
        if not rest.startswith("//"):
            raise InvalidInput(f'invalid image reference "{text}"', why='it needs "docker://"')
        whole = normalize(rest[2:])
        return Reference(REGISTRY, whole, whole)
    if not rest or "\0" in rest:
        why = f'nothing follows "{transport}:"'
        raise InvalidInput(f'invalid image reference "{text}"', why=why)
    return Reference(transport, rest)


def has_transport(text: str) -> bool:
    """Whether a reference says where the image is, so that the local store need not be asked."""
    transport, colon, _ = text.partition(":")
    return bool(colon) and transport in TRANSPORTS


def normalize(text: str) -> str:
    """The whole name: ``alpine`` is ``docker.io/library/alpine:latest``.

    With a digest the tag is dropped, since the digest alone decides. Raises ``InvalidInput``.
    """
    rest, at, digest = text.partition("@")
    if at:
        check_digest(digest, text)
    slash = rest.rfind("/")
    colon = rest.find(":", slash + 1)
    name, tag = (rest[:colon], rest[colon + 1 :]) if colon >= 0 else (rest, "latest")
    host, _, path = name.partition("/")
    if not path or not _is_host(host):
        host, path = _HOST, name
    if host in ("index.docker.io", "registry-1.docker.io"):
        host = _HOST
    if host == _HOST and "/" not in path:
        path = f"library/{path}"
    _check(text, host, path, tag)
    return f"{host}/{path}@{digest}" if at else f"{host}/{path}:{tag}"


def familiar(whole: str) -> str:
    """The short form that people know: without ``docker.io/library/``; the tag stays."""
    if whole.startswith("docker.io/library/"):
        return whole[18:]
    return whole[10:] if whole.startswith("docker.io/") else whole


def check_digest(digest: str, where: str) -> str:
    """The hexadecimal part of a ``sha256:`` digest. Raises ``ImageError``."""
    algorithm, _, value = digest.partition(":")
    if algorithm != "sha256" or len(value) != 64 or not _HEX.issuperset(value):
        raise ImageError(
            f'invalid digest "{digest[:100]}" in "{where[:200]}"',
            why='it must be "sha256:" and 64 hexadecimal digits',
        )
    return value


def is_id(text: str) -> bool:
    """Whether the text can be an image id or the beginning of one."""
    return 0 < len(text) <= 64 and _HEX.issuperset(text)


def is_loopback(whole: str) -> bool:
    """Whether a whole name's registry is on this machine: Docker asks such ones without TLS."""
    host = whole.partition("/")[0].rpartition(":")
    name = host[0] or host[2]
    return name in ("localhost", "[::1]") or (name.startswith("127.") and name.count(".") == 3)


def _is_host(text: str) -> bool:
    return "." in text or ":" in text or text == "localhost" or text != text.lower()


def _check(text: str, host: str, path: str, tag: str) -> None:
    why = ""
    if path != path.lower():
        why = "a repository name must be lower case"
    elif not all(map(_is_component, path.split("/"))) or not _is_authority(host):
        why = "the form is [HOST[:PORT]/]NAME[:TAG][@sha256:DIGEST]"
    elif len(host) + 1 + len(path) > _LONGEST_NAME:
        why = f"a name may have {_LONGEST_NAME} characters"
    elif not _is_tag(tag):
        why = f'a tag has up to {_LONGEST_TAG} letters, digits, "_", "." and "-"'
    if why:
        raise InvalidInput(f'invalid image name "{text[:300]}"', why=why)


def _is_component(text: str) -> bool:
    """Lower-case words parted by ".", "_", "__" or any number of "-"."""
    word = True  # a separator may not come first
    index = 0
    while index < len(text):
        if text[index] in _LOWER:
            word, index = False, index + 1
            continue
        end = index
        while end < len(text) and text[end] == text[index]:
            end += 1
        allowed = {".": 1, "_": 2, "-": len(text)}.get(text[index], 0)
        if word or end - index > allowed:
            return False
        word, index = True, end
    return not word


def _is_authority(host: str) -> bool:
    name, colon, port = host.partition(":") if "[" not in host else host.partition("]:")
    if colon and not (port.isascii() and port.isdecimal()):
        return False
    if host.startswith("["):
        inner = name.strip("[]")
        return bool(inner) and set(inner) <= frozenset("0123456789abcdefABCDEF:")
    labels = name.split(".")
    return all(
        label and set(label) <= _WORD - {"_"} | {"-"} and label[0] != "-" != label[-1]
        for label in labels
    )


def _is_tag(tag: str) -> bool:
    good = 0 < len(tag) <= _LONGEST_TAG and tag[0] in _WORD
    return good and set(tag) <= _WORD | {".", "-"}
