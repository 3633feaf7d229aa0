"""The table of what becomes of each field."""

from __future__ import annotations

import os

import pytest

from kata.errors import KataError
from kata.oci import schema
from kata.oci.honoured import ROWS, page, refuse

PAGE = os.path.join(os.path.dirname(__file__), "../../../docs/reference/oci.md")
NETWORK = {"type": "network"}
PLAIN = {"linux": {"namespaces": [NETWORK]}}
USERS = {"namespaces": [NETWORK, {"type": "user"}]}
MAP = [{"containerID": 0, "hostID": 100000, "size": 10}]
MAPS = {"uidMappings": MAP, "gidMappings": MAP}
BIND = {"destination": "/d", "type": "bind", "source": "/srv"}


def fields(kind, path=""):
    """Every path of a schema down to what is no table; arrays as ``[]``."""
    cells = dict(zip(kind.__code__.co_freevars, kind.__closure__ or (), strict=True))
    if "fields" in cells:
        for name, below in cells["fields"].cell_contents.items():
            yield from fields(below, f"{path}.{name}" if path else name)
    elif "kind" in cells and "least" in cells:
        yield from fields(cells["kind"].cell_contents, f"{path}[]")
    else:
        yield path


def test_every_field_has_a_row():
    """Its own, or one that speaks of all that is below it."""
    rows = {path for path, _, _ in ROWS}
    missing = [
        path for path in fields(schema.CONFIG)
        if not any(path == row or path.startswith((f"{row}.", f"{row}[")) for row in rows)
    ]
    assert not missing


def test_every_row_is_of_a_field():
    """No row is left of a field that is gone."""
    known = list(fields(schema.CONFIG))
    stale = [
        row for row, _, _ in ROWS
        if not any(path == row or path.startswith((f"{row}.", f"{row}[")) for path in known)
    ]
    assert not stale


def test_the_page_is_what_the_table_says():
    """``docs/reference/oci.md`` is generated (``make docs`` mends it)."""
    with open(PAGE, encoding="utf-8") as file:
        assert file.read() == page()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"linux": {"namespaces": []}}, "Host networking requested"),
        ({"linux": USERS}, "linux.uidMappings: is missing, and a user namespace needs it"),
        ({"linux": {**USERS, "uidMappings": MAP}}, "linux.gidMappings: is missing"),
        ({"mounts": [{**BIND, "uidMappings": MAP}]}, r"mounts\[0\].gidMappings: is missing"),
        ({"mounts": [{**BIND, "options": ["bind", "idmap"]}]}, "linux.uidMappings: is missing"),
        ({"mounts": [{**BIND, "type": "tmpfs", **MAPS}]}, "which bind mounts alone can"),
        ({"mounts": [{**BIND, "source": "/proc/sys", **MAPS}]}, 'of the mount at "/d"'),
        ({"mounts": [{**BIND, "source": "/dev", **MAPS}]}, "kernel's own file systems"),
    ],
)
def test_what_is_refused(change, words):
    """Before anything starts."""
    refuse(PLAIN)
    with pytest.raises(KataError, match=words):
        refuse({**PLAIN, **change})


@pytest.mark.parametrize(
    "change",
    [
        {"linux": {**USERS, **MAPS}},
        {"linux": {"namespaces": [NETWORK, {"type": "user", "path": "/proc/1/ns/user"}]}},
        {"mounts": [{**BIND, **MAPS}]},
        {"mounts": [{**BIND, "source": "/dev/shm", **MAPS}]},
        {"mounts": [{**BIND, "options": ["bind", "ridmap"]}], "linux": {**USERS, **MAPS}},
    ],
)
def test_users_and_id_maps_that_are_not_refused(change):
    """Maps that are whole are taken, of the container and of its bind mounts."""
    refuse({**PLAIN, **change})
