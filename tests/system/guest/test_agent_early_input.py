"""Input that comes before the process does."""

import json

from kata.wire import agent_api as api
from support.agent import read_all


def test_everything_in_one_write(guest):
    """Create, start, streams, input and its end may come at once: the process reads it all."""
    client = guest.client
    spec = json.dumps(guest.spec("sh", "-c", "cat; echo end")).encode()
    create = api.CreateContainerRequest(container_id="one", spec=spec, stdin=True, stdout=True)
    client.cork()
    made = client.start("CreateContainer", create)
    begun = client.start("StartContainer", api.ContainerRequest(container_id="one"))
    request = api.StreamRequest(container_id="one", stream=1)
    output = client.stream("ReadOutput", request)
    stdin = client.stream("WriteInput", api.StreamRequest(container_id="one", stream=0))
    stdin.write(b"early ")
    stdin.write(b"input\n")
    stdin.close()
    client.uncork()
    made.result(30)
    begun.result(30)
    assert read_all(output) == b"early input\nend\n"
    guest.delete("one", force=True)
