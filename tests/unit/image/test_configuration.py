"""Manifests and configurations come from strangers: shape is checked, nonsense is an error."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kata.errors import ImageError, KataError
from kata.image.configuration import choose, configuration, manifest
from support.images import ARCHITECTURE

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
)
_FIELDS = ("Entrypoint", "Cmd", "Env", "User", "Volumes", "Labels", "ExposedPorts", "StopSignal")


def whole(**config):
    """A configuration document."""
    rootfs = {"type": "layers", "diff_ids": []}
    value = {"architecture": ARCHITECTURE, "os": "linux", "config": config, "rootfs": rootfs}
    return json.dumps(value).encode()


@given(st.dictionaries(st.sampled_from(_FIELDS), JSON))
def test_any_field_may_be_nonsense(fields):
    """A field of the wrong kind is an error; what passes has the kinds that we promise."""
    try:
        found = configuration(whole(**fields))
    except ImageError:
        return
    assert all(type(word) is str for word in (*found.entrypoint, *found.cmd, *found.env))
    assert all(type(k) is str and type(v) is str for k, v in found.labels)
    assert type(found.user) is str


@given(JSON)
def test_any_document_may_be_nonsense(value):
    """No JSON makes anything but our errors."""
    data = json.dumps(value).encode()
    for function in (configuration, lambda data: manifest(data, "sha256:x")):
        with pytest.raises(KataError):
            function(data)
    if type(value) is dict:
        with pytest.raises(KataError):
            choose(value, "")


def test_null_is_absent():
    """Docker writes null for what is not set."""
    found = configuration(whole(Entrypoint=None, Cmd=["a"], Env=None, Labels=None, User=None))
    assert (found.entrypoint, found.cmd, found.env, found.labels, found.user) == (
        (), ("a",), (), (), "",
    )  # fmt: skip
