"""The agent's API is what was agreed: a change of it is deliberate, and has another hash."""

import os

import pytest

from kata.wire import agent_api
from kata.wire.protobuf import Message, describe, string

AGREED = os.path.join(os.path.dirname(__file__), "agent_api.txt")


def tables() -> str:
    """Every method and message in words."""
    classes: dict[str, str] = {}
    lines = []
    for name, (request, response) in agent_api.METHODS.items():
        agent_api._collect(request, classes)
        agent_api._collect(response, classes)
        kind = " streaming" if name in agent_api.STREAMING else ""
        lines.append(f"{name}({request.__name__}) {response.__name__}{kind}")
    return "\n".join((*lines, "", *(classes[name] for name in sorted(classes)))) + "\n"


def test_the_tables_are_those_agreed():
    """Whoever changes a message changes ``agent_api.txt`` too (write the new text there)."""
    with open(AGREED, encoding="utf-8") as file:
        assert tables() == file.read()


def test_the_hash_is_of_the_tables():
    """The hash is the same at every call, and another when a field, or a method, changes."""
    agreed = agent_api.api_hash()
    assert agreed == agent_api.api_hash()
    changed = type("SetClockRequest", (Message,), {"realtime": string(1)})
    request, response = agent_api.METHODS["SetClock"]
    for entry in ((changed, response), (request, request)):
        agent_api.METHODS["SetClock"] = entry
        try:
            assert agent_api.api_hash() != agreed
        finally:
            agent_api.METHODS["SetClock"] = (request, response)
    assert agent_api.api_hash() == agreed


@pytest.mark.parametrize("name", sorted(agent_api.STREAMING))
def test_streaming_methods_exist(name):
    """A method marked as streaming is one of the methods."""
    assert name in agent_api.METHODS


def test_every_message_of_the_module_is_used():
    """No message stands here that no method needs."""
    seen: dict[str, str] = {}
    for pair in agent_api.METHODS.values():
        for cls in pair:
            agent_api._collect(cls, seen)
    named = {
        name for name, cls in vars(agent_api).items()
        if isinstance(cls, type) and issubclass(cls, Message) and cls is not Message
    }  # fmt: skip
    # they travel in data frames: of Events, Resolve, Forward
    framed = {"GuestEvent", "NameMessage", "ForwardMessage"}
    assert named - set(seen) <= framed


def test_describe_names_what_matters():
    """The text of a message has its numbers, names and kinds."""
    assert describe(agent_api.ContainerRequest) == "ContainerRequest(1:container_id:string::0)"
