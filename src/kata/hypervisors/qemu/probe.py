"""Which QEMU there is, and which accelerator really runs a guest.

The one rule: an accelerator is chosen because a guest booted with it, never because a device node
is there. The answer is kept per boot of the host, QEMU and guest image.
"""

from __future__ import annotations

import os

from kata.errors import HostError
from kata.wire import quickjson
from kata.wire.record import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from kata.machine.description import Machine

    Boot = Callable[[str], None]  # boots a guest with an accelerator to its agent, or raises

NAMES = ("qemu-system-x86_64", "qemu-kvm")
_PLACES = ("/usr/bin", "/usr/local/bin", "/usr/libexec", "/usr/sbin")
KVM_DEVICE = "/dev/kvm"
PROBE_SECONDS = 6.0
_INSTALL = "apt-get install qemu-system-x86"


@record
class Choice:
    """The accelerator to use, why, and whether the answer came from the cache."""

    accelerator: str
    reason: str
    cached: bool = False


def locate(configured: str) -> str:
    """The path of QEMU's program; raises ``HostError`` if there is none that can be executed."""
    if configured:
        if os.path.isfile(configured) and os.access(configured, os.X_OK):
            return configured
        there = os.path.exists(configured)
        raise HostError(
            f'"{configured}" is not a program' if there else f'there is no QEMU at "{configured}"',
            hint="set path in the section hypervisor.qemu of the configuration, or leave it out",
        )
    for directory in (*os.environ.get("PATH", "").split(":"), *_PLACES):
        for name in NAMES:
            path = f"{directory}/{name}"
            if directory.startswith("/") and os.path.isfile(path) and os.access(path, os.X_OK):
                return path
    raise HostError("QEMU is not installed", hint=_INSTALL)


def choose(machine: Machine, program: str, cache: str, *, wanted: str, boot: Boot) -> Choice:
    """The accelerator for machines like ``machine``, whose own is ignored.

    ``wanted`` kvm or tcg is taken as it is; auto asks the cache (a directory), else lets ``boot``
    start a guest under kvm.
    """
    if wanted != "auto":
        return Choice(wanted, "the configuration says so")
    if not os.path.exists(KVM_DEVICE):
        return Choice("tcg", f"there is no {KVM_DEVICE}")
    key = _key(machine, program)
    path = f"{cache}/accelerator-{key}.json"
    known = _recall(path)
    if known is not None:
        return known
    choice = _try(boot)
    _remember(cache, path, choice)
    return choice


def _try(boot: Boot) -> Choice:
    try:
        boot("kvm")
    except Exception as error:  # whatever it is: it does not work
        return Choice("tcg", f"{KVM_DEVICE} is there, but no guest boots with it: {error}")
    return Choice("kvm", f"a guest booted with {KVM_DEVICE}")


def _key(machine: Machine, program: str) -> str:
    from zlib import crc32

    found = os.stat(program)
    with open("/proc/sys/kernel/random/boot_id", encoding="utf-8") as file:
        boot_id = file.read().strip()
    facts = (
        boot_id, program, found.st_size, found.st_mtime_ns, machine.image_digest,
        machine.machine_type, machine.cpu_model,
    )  # fmt: skip
    return f"{crc32(repr(facts).encode()):08x}"


def _recall(path: str) -> Choice | None:
    try:
        with open(path, "rb") as file:
            found = quickjson.loads(file.read(65536))
        return Choice(str(found["accelerator"]), str(found["reason"]), cached=True)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _remember(cache: str, path: str, choice: Choice) -> None:
    """Keep the answer; where it cannot be kept, the next start asks again."""
    temporary = f"{path}.{os.getpid()}.new"
    try:
        os.makedirs(cache, mode=0o700, exist_ok=True)
        with open(temporary, "w", encoding="utf-8") as file:
            file.write(
                quickjson.dumps({"accelerator": choice.accelerator, "reason": choice.reason})
            )
        os.rename(temporary, path)
    except OSError:
        pass
