"""containerd's messages are as agreed, and protobuf reads and writes the same bytes."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kata.wire import (
    containerd_events,
    containerd_metrics1,
    containerd_metrics2,
    containerd_sandbox,
    containerd_task,
    containerd_types,
)
from kata.wire.protobuf import Message, describe
from support.oracle import Oracle, fill, ours_of, values

MODULES = (
    containerd_types, containerd_task, containerd_events, containerd_sandbox,
    containerd_metrics1, containerd_metrics2,
)  # fmt: skip
AGREED = os.path.join(os.path.dirname(__file__), "containerd_api.txt")


def own(module) -> list[type[Message]]:
    """The messages that a module defines."""
    return [
        cls for cls in vars(module).values()
        if isinstance(cls, type) and issubclass(cls, Message) and cls.__module__ == module.__name__
    ]  # fmt: skip


def tables() -> str:
    """Every message in words: its numbers, names and kinds."""
    lines = []
    for module in MODULES:
        lines.append(f"[{module.__name__.rpartition('.')[2]}]")
        lines += [describe(cls) for cls in own(module)]
        lines += [
            f"{name}({request.__name__}) {response.__name__}"
            for name, (request, response) in getattr(module, "METHODS", {}).items()
        ]
    return "\n".join(lines) + "\n"


def test_the_tables_are_those_agreed():
    """The text was compared with containerd's .proto files; whoever changes one does so again."""
    with open(AGREED, encoding="utf-8") as file:
        assert tables() == file.read()


@pytest.mark.parametrize("module", MODULES, ids=lambda m: m.__name__.rpartition("_")[2])
@given(data=st.data())
def test_protobuf_agrees(module, data):
    """Bytes of ours mean the same to protobuf, and its bytes to us."""
    classes = own(module)
    oracle = Oracle(*classes)
    cls = data.draw(st.sampled_from(classes))
    ours = data.draw(values(cls))
    theirs = oracle[cls]()
    theirs.ParseFromString(ours.encode())
    assert ours_of(cls, theirs) == ours
    filled = fill(oracle[cls](), ours)
    assert cls.decode(filled.SerializeToString()) == ours


def test_moments():
    """Nanoseconds there and back; none is none."""
    moment = containerd_types.timestamp(1_700_000_000_000_000_007)
    assert (moment.seconds, moment.nanos) == (1_700_000_000, 7)
    assert containerd_types.nanoseconds(moment) == 1_700_000_000_000_000_007
    assert containerd_types.timestamp(0) is None
    assert containerd_types.nanoseconds(None) == 0
