"""QEMU's monitor protocol, bytes against values."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kata.errors import HypervisorError, ProtocolError
from kata.hypervisors.qemu.qmp import Event, Qmp, Reply, check

GREETING = {"QMP": {"version": {"qemu": {"major": 7, "minor": 2, "micro": 22}, "package": ""},
                    "capabilities": ["oob"]}}  # fmt: skip


def lines(*messages):
    return b"".join(json.dumps(m).encode() + b"\r\n" for m in messages)


def test_commands_are_numbered_lines():
    """Each command is one line of JSON with an id of its own."""
    qmp = Qmp()
    first, data = qmp.command("qmp_capabilities")
    assert json.loads(data) == {"execute": "qmp_capabilities", "id": first}
    second, data = qmp.command("migrate-incoming", {"uri": "fd:6"})
    assert second != first
    assert json.loads(data)["arguments"] == {"uri": "fd:6"}
    assert data.endswith(b"\n")


def test_the_greeting_tells_the_version():
    """The greeting is no event; the version stays."""
    qmp = Qmp()
    assert qmp.receive(lines(GREETING)) == []
    assert qmp.version == (7, 2, 22)


@given(st.integers(1, 400))
def test_where_the_stream_is_cut_does_not_matter(size):
    """Replies and events come out the same however the bytes arrive."""
    data = lines(
        GREETING, {"return": {"a": 1}, "id": 1}, {"event": "RESUME", "timestamp": {}},
        {"error": {"class": "GenericError", "desc": "no"}, "id": 2},
    )  # fmt: skip
    qmp, found = Qmp(), []
    for at in range(0, len(data), size):
        found += qmp.receive(data[at : at + size])
    assert found == [Reply(1, {"a": 1}), Event("RESUME", {}), Reply(2, None, "no")]


@pytest.mark.parametrize(
    "line", [b"nonsense\n", b"[]\n", b"{}\n", b'{"return": {}}\n', b'{"error": 3, "id": 1}\n',
             b'{"event": "X", "data": 3}\n', b'{"QMP": {}}\n', b"\xff\xfe\n", b"[[[[\n"],
)  # fmt: skip
def test_nonsense_is_a_protocol_error(line):
    """Whatever is no message of the protocol ends the conversation, with the bytes shown."""
    with pytest.raises(ProtocolError, match="qmp"):
        Qmp().receive(line)


@given(st.binary(max_size=200))
def test_no_input_breaks_it_otherwise(data):
    """Arbitrary bytes give messages or a protocol error, nothing else."""
    try:
        Qmp().receive(data + b"\n")
    except ProtocolError:
        pass


def test_an_endless_message_is_refused():
    """A monitor that never ends its line cannot fill our memory."""
    qmp = Qmp()
    for _ in range(16):
        qmp.receive(b"x" * (64 << 10))
    with pytest.raises(ProtocolError, match="without end"):
        qmp.receive(b"x")


def test_a_refusal_is_an_error_with_qemu_s_words():
    """The caller learns what was asked and what QEMU said."""
    assert check(Reply(1, {"x": 1}), "plug") == {"x": 1}
    with pytest.raises(HypervisorError, match=r"plug: Bus 'pcie.0' does not support"):
        check(Reply(1, None, "Bus 'pcie.0' does not support hotplugging"), "plug")
