"""Names of images are made whole as Docker makes them, and nothing else passes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kata.errors import InvalidInput
from kata.image.reference import familiar, is_loopback, normalize, parse

DIGEST = "sha256:" + "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        ("alpine", "docker.io/library/alpine:latest"),
        ("alpine:3.20", "docker.io/library/alpine:3.20"),
        ("user/app", "docker.io/user/app:latest"),
        ("docker.io/alpine", "docker.io/library/alpine:latest"),
        ("index.docker.io/user/app:1", "docker.io/user/app:1"),
        ("localhost/app", "localhost/app:latest"),
        ("localhost:5000/app:1", "localhost:5000/app:1"),
        ("localhost:5000", "docker.io/library/localhost:5000"),
        ("[::1]:5000/app", "[::1]:5000/app:latest"),
        ("ghcr.io/a/b/c__d-e.f:V_1.0-x", "ghcr.io/a/b/c__d-e.f:V_1.0-x"),
        ("Host/app", "Host/app:latest"),
        (f"alpine@{DIGEST}", f"docker.io/library/alpine@{DIGEST}"),
        (f"alpine:3@{DIGEST}", f"docker.io/library/alpine@{DIGEST}"),
    ],
)
def test_whole_names(text, whole):
    """A short name gets Docker's registry, library and tag; a digest goes before a tag."""
    assert normalize(text) == whole
    assert normalize(whole) == whole
    assert normalize(familiar(whole)) == whole


@pytest.mark.parametrize(
    "text",
    [
        "", "Alpine", "a//b", "/a", "a/", "a:", "a:b:c", "a: b", "-a", "a-", "a..b", "a___b",
        "a._b",
        "../etc", "a/../b", "a\0b", "a@sha256:12", "a@md5:" + "0" * 32, "b" * 256,
        "a:" + "t" * 129,
        "ä", "a:é", ".a", "x.y/", "x.y:port/a", "-x.y/a", "a b", "a:..", "a:.",
    ],
)  # fmt: skip
def test_bad_names(text):
    """What is no name is refused."""
    with pytest.raises(InvalidInput):
        normalize(text)


@given(st.text(alphabet="ab.:/@-_A0[]\0\n é", max_size=20))
def test_no_name_leaves_its_directory(text):
    """Whatever passes is a relative path without dots, and is its own whole name."""
    try:
        whole = normalize(text)
    except InvalidInput:
        return
    parts = whole.split("/")
    assert len(parts) >= 2
    assert not set(parts) & {"", ".", ".."}
    assert "\0" not in whole
    assert normalize(whole) == whole
    assert normalize(familiar(whole)) == whole


@pytest.mark.parametrize(
    ("text", "transport", "rest"),
    [
        ("oci:dir:tag", "oci", "dir:tag"),
        ("oci-archive:/a:b.tar", "oci-archive", "/a:b.tar"),
        ("docker-archive:x.tar", "docker-archive", "x.tar"),
        ("docker://alpine", "docker", "docker.io/library/alpine:latest"),
        ("alpine:3", "docker", "docker.io/library/alpine:3"),
        ("containers-storage:alpine", "containers-storage", "alpine"),
        ("docker-daemon:alpine:latest", "docker-daemon", "alpine:latest"),
    ],
)
def test_transports(text, transport, rest):
    """A reference says where the image is; a plain one is a registry's."""
    found = parse(text)
    assert (found.transport, found.rest) == (transport, rest)


@pytest.mark.parametrize("text", ["docker:alpine", "oci:", "docker://", "http://x", "oci:a\0b"])
def test_bad_references(text):
    """A transport without its rest, or an unknown one, is refused."""
    with pytest.raises(InvalidInput):
        parse(text)


def test_loopback():
    """Registries of this machine are asked without TLS, as Docker does, and no others."""
    hosts = ("localhost", "localhost:5000", "127.0.0.1:5000", "127.9.9.9", "[::1]:1")
    assert all(is_loopback(f"{host}/a:1") for host in hosts)
    hosts = ("docker.io", "localhost.evil.org", "127.evil.org", "127.0.0.1.org", "10.0.0.1:5000")
    assert not any(is_loopback(f"{host}/a:1") for host in hosts)
