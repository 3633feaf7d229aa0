"""ttRPC: any cutting of the bytes gives the same events, and no bytes give anything but events."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kata.errors import GuestError, HypervisorError, InvalidInput, KataError, ProtocolError
from kata.wire.ttrpc import (
    DATA,
    HEADER,
    MAX_MESSAGE,
    REMOTE_CLOSED,
    REQUEST,
    RESPONSE,
    Connection,
    Data,
    KeyValue,
    Request,
    RequestMessage,
    Response,
    ResponseMessage,
    Status,
    error_of,
    frame,
    status_of,
)

SERVICE, METHOD = "kata.Agent", "Wait"


def request_frame(stream=1, flags=REMOTE_CLOSED, **fields):
    """A request as the peer sends it."""
    return frame(stream, REQUEST, RequestMessage(**fields).encode(), flags)


STREAMS = st.integers(0, (1 << 32) - 1)
SENT = st.one_of(
    st.builds(Connection.respond, STREAMS, st.binary()),
    st.builds(
        Connection.fail, STREAMS, st.builds(GuestError, st.text(), why=st.text(), hint=st.text())
    ),
    st.builds(lambda n, data, close: Connection.data(n, data, close=close), STREAMS, st.binary(),
              st.booleans()),
)  # fmt: skip


def shown(event):
    """An event to compare: errors have no equality of their own."""
    return repr(event)


@given(st.lists(SENT, max_size=5), st.integers(1, 30))
def test_any_cutting_gives_the_same(frames, size):
    """Bytes fed in pieces of any size, one byte too, give what the whole gives."""
    whole = b"".join(frames)
    expected = [shown(event) for event in Connection().receive(whole)]
    assert len(expected) == len(frames)
    for step in (1, size):
        connection = Connection()
        got = []
        for at in range(0, len(whole), step):
            got += connection.receive(whole[at : at + step])
        assert [shown(event) for event in got] == expected


@given(st.text(), st.text(), st.binary(), st.integers(0, (1 << 63) - 1), st.booleans())
def test_a_request_arrives(service, method, payload, timeout, streaming):
    """A request arrives with all it was made of, on the stream it was given."""
    client, server = Connection(), Connection()
    number, data = client.request(service, method, payload, timeout_ns=timeout, stream=streaming)
    [event] = server.receive(data)
    assert event == Request(number, service, method, payload, timeout, streaming)


def test_streams_are_odd_and_new():
    """A client's streams count 1, 3, 5 …, as the specification says."""
    client, server = Connection(), Connection()
    made = [client.request(SERVICE, METHOD, b"") for _ in range(3)]
    assert [number for number, _ in made] == [1, 3, 5]
    events = server.receive(b"".join(data for _, data in made))
    assert [event.stream for event in events] == [1, 3, 5]


@pytest.mark.parametrize("stream", [0, 2, 0xFFFFFFFE])
def test_a_request_on_a_stream_of_the_server_s_is_refused(stream):
    """Only odd streams are a client's."""
    with pytest.raises(ProtocolError, match="a stream of ours"):
        Connection().receive(request_frame(stream))


def test_a_client_may_count_anew():
    """A guest thawed from a template has another peer than the one it was frozen with."""
    server = Connection()
    for _ in range(2):
        _, data = Connection().request(SERVICE, METHOD, b"")
        assert [event.stream for event in server.receive(data)] == [1]


def test_metadata_arrives():
    """The key-value pairs of a request are given as pairs."""
    metadata = [KeyValue(key="a", value="1"), KeyValue(key="a", value="2")]
    [event] = Connection().receive(request_frame(service="s", method="m", metadata=metadata))
    assert event.metadata == (("a", "1"), ("a", "2"))
    assert not event.streaming


def test_an_answer_arrives():
    """A payload answers a stream; an empty one too."""
    events = Connection().receive(Connection.respond(7, b"yes") + Connection.respond(9, b""))
    assert events == [Response(7, b"yes"), Response(9, b"")]


def test_data_arrives():
    """Data frames carry raw bytes, and the end of a direction with or without some."""
    sent = (
        Connection.data(1, b"a") + Connection.data(1, b"b", close=True)
        + Connection.data(3, b"", close=True)
    )  # fmt: skip
    assert Connection().receive(sent) == [
        Data(1, b"a"), Data(1, b"b", closed=True), Data(3, b"", closed=True),
    ]  # fmt: skip


def test_a_failure_keeps_its_class_and_hint():
    """What the peer raised is what arrives: class, code, text, hint, and console."""
    error = HypervisorError("no boot", why="panic", hint="look", console="a\nb")
    [event] = Connection().receive(Connection.fail(5, error))
    assert type(event.error) is HypervisorError
    assert (event.stream, event.payload) == (5, b"")
    assert (str(event.error), event.error.hint) == ("no boot: panic", "look")
    assert (event.error.code, event.error.console) == (error.code, "a\nb")


def test_a_foreign_failure_has_a_class_by_its_code():
    """A peer that knows nothing of our classes still gives a KataError with its code."""
    status = Status(code=3, message="bad")
    [event] = Connection().receive(frame(1, RESPONSE, ResponseMessage(status=status).encode()))
    assert type(event.error) is InvalidInput
    odd = error_of(Status(code=77, message="odd"))
    assert type(odd) is KataError
    assert odd.code == 77


def test_a_failure_s_text_is_bounded_and_plain():
    """A hostile peer cannot write to the terminal, or fill it, by failing."""
    status = status_of(HypervisorError("\x1b[2J" + "a" * 10_000, console="\x1b]0;x\x07\n"))
    error = error_of(status)
    assert str(error).startswith("?[2Jaaa")
    assert len(str(error)) < 5000
    assert error.console == "?]0;x?\n"


def test_a_success_status_is_no_failure():
    """A response with the status OK is a payload."""
    body = ResponseMessage(status=Status(code=0), payload=b"x").encode()
    assert Connection().receive(frame(1, RESPONSE, body)) == [Response(1, b"x")]


@given(st.lists(st.binary(max_size=60), max_size=8))
def test_garbage_is_a_protocol_error(pieces):
    """Arbitrary bytes give events or a ProtocolError, and the buffer holds one message at most."""
    connection = Connection(max_message=100)
    try:
        for piece in pieces:
            connection.receive(piece)
            assert len(connection._buffer) <= 100 + HEADER.size
    except ProtocolError:
        pass


@given(st.integers(0, 255), st.integers(0, 255), STREAMS, st.binary(max_size=80))
def test_well_framed_garbage_is_a_protocol_error(kind, flags, stream, body):
    """Garbage in a proper frame gives an event or a ProtocolError."""
    try:
        events = Connection().receive(HEADER.pack(len(body), stream, kind, flags) + body)
    except ProtocolError:
        return
    assert len(events) == 1


def test_too_large_is_refused_by_its_header():
    """A message beyond the limit is refused before its body arrives."""
    with pytest.raises(ProtocolError, match="too large: 101 bytes, the limit is 100"):
        Connection(max_message=100).receive(HEADER.pack(101, 1, DATA, 0))
    assert Connection(max_message=100).receive(Connection.data(1, b"x" * 100))


def test_too_large_is_not_sent():
    """What no peer would take is refused here, and the connection stays usable."""
    client = Connection()
    with pytest.raises(InvalidInput, match="too large"):
        client.request(SERVICE, METHOD, bytes(MAX_MESSAGE))
    for send in (Connection.respond, Connection.data):
        with pytest.raises(InvalidInput, match="too large"):
            send(1, bytes(MAX_MESSAGE + 1))


@pytest.mark.parametrize("kind", [0, 4, 255])
def test_unknown_types_are_refused(kind):
    """There are three types of message."""
    with pytest.raises(ProtocolError, match="unknown message type"):
        Connection().receive(frame(1, kind, b""))


def test_gigabytes_need_no_memory():
    """Frames consumed leave nothing behind in the connection."""
    connection = Connection()
    chunk = Connection.data(1, bytes(1 << 16))
    for _ in range(1000):
        [event] = connection.receive(chunk)
        assert len(event.payload) == 1 << 16
    assert not connection._buffer
