"""Capabilities: their names, and giving a process its five sets.

Source: linux/capability.h; the order of steps is the one capabilities(7) asks for.
"""

from __future__ import annotations

from kata.errors import InvalidInput
from kata.linux import syscalls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

NAMES = (
    "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL",
    "CAP_SETGID", "CAP_SETUID", "CAP_SETPCAP", "CAP_LINUX_IMMUTABLE", "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST", "CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_IPC_LOCK", "CAP_IPC_OWNER",
    "CAP_SYS_MODULE", "CAP_SYS_RAWIO", "CAP_SYS_CHROOT", "CAP_SYS_PTRACE", "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN", "CAP_SYS_BOOT", "CAP_SYS_NICE", "CAP_SYS_RESOURCE", "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG", "CAP_MKNOD", "CAP_LEASE", "CAP_AUDIT_WRITE", "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP", "CAP_MAC_OVERRIDE", "CAP_MAC_ADMIN", "CAP_SYSLOG", "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND", "CAP_AUDIT_READ", "CAP_PERFMON", "CAP_BPF", "CAP_CHECKPOINT_RESTORE",
)  # fmt: skip
_BITS = {name: 1 << number for number, name in enumerate(NAMES)}
EVERY = (1 << len(NAMES)) - 1
SETS = ("bounding", "effective", "permitted", "inheritable", "ambient")


def mask_of(names: Iterable[str]) -> int:
    """The bit mask of capability names. Raises ``InvalidInput`` for one that does not exist."""
    mask = 0
    for name in names:
        bit = _BITS.get(name)
        if bit is None:
            raise InvalidInput(f'unknown capability "{name}"')
        mask |= bit
    return mask


def masks_of(sets: Mapping[str, Iterable[str]]) -> dict[str, int]:
    """The masks of all five sets; one that is not named is empty."""
    return {kind: mask_of(sets.get(kind) or ()) for kind in SETS}


def limit_bounding(keep: int, present: int = EVERY) -> None:
    """Drop from the bounding set what is not in ``keep``; needs CAP_SETPCAP. Irreversible.

    ``present`` is what may still be in it: the rest was dropped before.
    """
    left = present & ~keep & EVERY
    while left:
        number = left.bit_length() - 1
        left ^= 1 << number
        try:
            syscalls.prctl(syscalls.PR_CAPBSET_DROP, number)
        except OSError as error:
            if error.errno != 22:  # EINVAL: this kernel does not know it
                raise


def ambient_of(masks: Mapping[str, int]) -> int:
    """The ambient set that the kernel grants; ``runc spec`` asks for more, and runc passes over it.

    Only what is permitted and inheritable can be ambient: capabilities(7).
    """
    return masks["ambient"] & masks["permitted"] & masks["inheritable"]


def apply(masks: Mapping[str, int]) -> None:
    """Set effective, permitted, inheritable and ambient; call after the change of user."""
    syscalls.capset(masks["effective"], masks["permitted"], masks["inheritable"])
    syscalls.prctl(syscalls.PR_CAP_AMBIENT, syscalls.PR_CAP_AMBIENT_CLEAR_ALL)
    ambient = ambient_of(masks)
    for number in range(len(NAMES)):
        if ambient >> number & 1:
            syscalls.prctl(syscalls.PR_CAP_AMBIENT, syscalls.PR_CAP_AMBIENT_RAISE, number)
