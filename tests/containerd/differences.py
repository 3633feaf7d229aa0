"""Where pods and tasks of our runtime answer otherwise than runc's, and why: name to a row.

The one rule: a test asks ``differs`` by name and proves what holds with us as it proves what
holds with runc; ``docs/reference/cri.md`` is this table.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """What one asks for, what comes of it with runc and with us, and the reason."""

    asked: str
    runc: str
    ours: str
    why: str


ROWS: dict[str, Row] = {
    "host-network": Row(
        "the network of the host (`hostNetwork`, `ctr run --net-host`)", "shared",
        "refused, before anything starts",
        "a machine has a kernel and a network stack of its own; what listens in it cannot be "
        "made to listen on the host's addresses without letting the guest into the host's network",
    ),
    "host-pid": Row(
        "the processes of the host (`hostPID`)", "seen and signalled",
        "those of the pod's machine", "the host's processes are another kernel's",
    ),
    "host-ipc": Row(
        "the host's System V objects and `/dev/shm` (`hostIPC`)", "shared",
        "those of the pod's machine", "they are another kernel's",
    ),
    "privileged": Row(
        "a privileged container", "all devices of the host", "those of every container",
        "giving a machine the host's devices would undo what it is for; containerd is told so by "
        "`privileged_without_host_devices`",
    ),
    "propagation": Row(
        "a volume with `mountPropagation: HostToContainer` or `Bidirectional`",
        "mounts made later travel, from the host or both ways", "they do not",
        "mounts are a kernel's own; the machine sees the files of a volume, not the host's table",
    ),
}  # fmt: skip

# what pods of ours do not do yet, though runc's do: test to reason; when one passes, the row is out
# of date and the suite fails
NOT_DONE: dict[str, str] = {}


def differs(runtime: str, name: str) -> bool:
    """Whether a runtime is ours, which differs by the row of this name."""
    assert name in ROWS, f"no row {name}"
    return runtime != "runc"


def page() -> str:
    """The page about all rows."""
    lines = [
        "# Pods and tasks: where `containerd-shim-kata-v2` differs from runc",
        "",
        "Everything else that containerd's tests here ask for is answered as by runc. Each row is",
        "held by a test, which proves what happens instead.",
        "",
        "| asked for | with runc | with kata | why |",
        "| --- | --- | --- | --- |",
    ]
    lines += [f"| {row.asked} | {row.runc} | {row.ours} | {row.why} |" for row in ROWS.values()]
    if NOT_DONE:
        lines += ["", "Not done:", "", *(f"* {reason}" for reason in NOT_DONE.values())]
    return "\n".join(lines) + "\n"
