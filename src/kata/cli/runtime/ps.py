"""``kata-runtime ps``: the processes of a container.

As JSON, the pids are those of the host's stand-ins: engines look them up in the host's process
list. The table shows the guest's own processes.
"""

from __future__ import annotations

from kata.cli.runtime.containers import connect, find
from kata.errors import InvalidInput
from kata.runtime.control_api import PidsResponse
from kata.runtime.store import STOPPED
from kata.wire.agent_api import ContainerRequest, ListProcessesResponse
from kata.wire.quickjson import dumps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kata.cli.parse import Options


_HEAD = f"{'UID':<10} {'PID':>7} {'PPID':>7} CMD"


def run(options: Options) -> int:
    """Print them."""
    if options.format not in (None, "table", "json"):
        raise InvalidInput("invalid format option")
    store, state = find(options)
    if state.status == STOPPED:
        print("null" if options.format == "json" else _HEAD)
        return 0
    client = connect(store, state)
    request = ContainerRequest(container_id=state.id)
    if options.format == "json":
        standins = client.call("Standins", request)
        assert isinstance(standins, PidsResponse)
        print(dumps(list(standins.pids)))
        return 0
    answer = client.call("Processes", request)
    assert isinstance(answer, ListProcessesResponse)
    print(_HEAD)
    for process in answer.processes:
        print(f"{process.uid:<10} {process.pid:>7} {process.parent:>7} {process.command}")
    return 0
