"""Imports go down the rooms only, never in a circle; the guest's rooms stay by themselves."""

import sys

import pytest

from support import source

FLOORS = (
    {"cli", "shim", "image", "metrics"},
    {"runtime"},
    {"hypervisors", "storage", "network", "devices", "resources"},
    {"machine", "config"},
    {"linux"},
    {"wire", "oci"},
    {"errors", "version"},
)
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
GUEST = {"", "errors", "version", "wire", "oci", "linux", "guest"}
# guest stands beside the host's rooms: it uses what is below linux, nothing of the host uses it
FLOOR["guest"] = FLOOR["machine"]
# the command line is where the rooms beside it are called from
BESIDE = {("cli", "image"), ("cli", "shim"), ("cli", "metrics"), ("oci", "wire")}


def edges():
    """Every import of a module of ours by another: (importer, imported)."""
    for name in sorted(source.modules()):
        for other in sorted(source.imports(name, types=True)):
            if other == "kata" or other.startswith("kata."):
                yield name, other


def test_imports_go_down():
    """No module imports from a room above its own, nor from one beside it."""
    wrong = []
    for name, other in edges():
        here, there = source.room(name), source.room(other)
        if here == there or not there or not here or (here, there) in BESIDE:
            continue
        if here == "guest" and there in GUEST:
            continue
        if FLOOR[here] >= FLOOR[there]:
            wrong.append(f"{name} imports {other}")
    assert not wrong, "\n".join(wrong)


def test_every_room_has_a_floor():
    """A new room is placed deliberately."""
    assert {source.room(name) for name in source.modules()} - {""} <= set(FLOOR)


def test_guest_rooms_stay_by_themselves():
    """The rooms the guest uses import only each other and the standard library."""
    wrong = []
    for name in source.modules():
        if source.room(name) not in GUEST or name == "kata":
            continue
        for other in source.imports(name):
            top = other.split(".")[0]
            inside = source.room(other) in GUEST if top == "kata" else top in ALLOWED
            if not inside:
                wrong.append(f"{name} imports {other}")
    assert not wrong, "\n".join(wrong)


ALLOWED = sys.stdlib_module_names | {"_sha2"}  # the newer of two names, by interpreter


def test_no_circles():
    """No module imports itself by way of others, lazily or not, types left out."""
    graph = {
        name: {other for other in source.imports(name) if other in source.modules()}
        for name in source.modules()
    }
    circle = _circle(graph)
    assert not circle, " -> ".join(circle)


def _circle(graph: dict[str, set[str]]) -> list[str]:
    done: set[str] = set()

    def visit(name: str, above: list[str]) -> list[str]:
        if name in above:
            return [*above[above.index(name) :], name]
        if name in done:
            return []
        for other in sorted(graph[name]):
            if found := visit(other, [*above, name]):
                return found
        done.add(name)
        return []

    for name in sorted(graph):
        if found := visit(name, []):
            return found
    return []


@pytest.mark.parametrize(
    ("graph", "circle"),
    [
        ({"a": {"b"}, "b": {"c"}, "c": set()}, []),
        ({"a": {"b"}, "b": {"c"}, "c": {"b"}}, ["b", "c", "b"]),
    ],
)
def test_circles_are_found(graph, circle):
    """The search for circles finds one, and none where there is none."""
    assert _circle(graph) == circle
