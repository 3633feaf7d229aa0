"""CRI-O: a file in its drop-in directory, with two handlers.

``kata`` is called as a program, as runc is; ``kata-vm`` speaks containerd's shim protocol.
Source: ``crio.conf(5)``, table ``crio.runtime.runtimes``.
"""

from __future__ import annotations

from kata.cli.engines.plan import Plan, marked

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kata.cli.engines.host import Host

PATH = "/etc/crio/crio.conf.d/50-kata.conf"
_TEXT = """\
[crio.runtime.runtimes.kata]
runtime_path = "{runtime}"
runtime_type = "oci"
runtime_root = "/run/kata"

[crio.runtime.runtimes.kata-vm]
runtime_path = "{shim}"
runtime_type = "vm"
privileged_without_host_devices = true
"""


def plan(host: Host) -> Plan:
    """The two handlers. Raises ``HostError``."""
    host.version("crio")
    return Plan(
        "crio", PATH, text(host.program("kata-runtime"), host.program("containerd-shim-kata-v2")),
        restart="systemctl restart crio", then="crictl runp --runtime kata POD.json",
    )  # fmt: skip


def text(runtime: str, shim: str) -> str:
    """The file."""
    return marked("crio", _TEXT.format(runtime=runtime, shim=shim))
