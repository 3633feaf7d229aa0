"""How large a virtual machine is made for what its containers ask.

The one rule: few shapes, so that few templates exist; the exact limits are the guest's cgroups'.
Sizes are MiB.
"""

from __future__ import annotations

from kata.errors import InvalidInput

SMALLEST = 128  # measured: the least in which the guest boots and runs a small container
_SHAPES = (256, 512, 1024, 2048)
_STEP = 2048
_OVERHEAD = 96  # the guest's kernel, its agent and what they need to work beside a full container
_SECTION = 128  # what is plugged has a whole number of the guest's memory blocks
_MOST_VCPUS = 240
_VCPU_SHAPES = (1, 2, 4, 8, 16)


def memory_for(limit: int) -> int:
    """The least memory of a machine in which a container may use ``limit``."""
    return limit + _OVERHEAD


def machine_memory(wanted: int) -> int:
    """The shape that holds ``wanted``. Raises ``InvalidInput`` if no guest boots in so little."""
    if wanted < SMALLEST:
        raise InvalidInput(
            f"{wanted} MiB of memory are too little for a virtual machine",
            why=f"its kernel and agent need {SMALLEST} MiB",
            hint="--memory 256m",
        )
    for shape in _SHAPES:
        if wanted <= shape:
            return shape
    return -(-wanted // _STEP) * _STEP


def growth(has: int, wanted: int, most: int) -> int:
    """What to plug into a machine that has less than ``wanted``: it is then a shape again.

    Few steps, for a machine has few slots; and no more than ``most`` in all.
    """
    steps = min(-(-(machine_memory(wanted) - has) // _SECTION), (most - has) // _SECTION)
    return max(0, steps) * _SECTION


def most_memory(host: int) -> int:
    """What a machine may grow to, on a host with so much memory."""
    return max(_STEP, host // _STEP * _STEP)


def machine_vcpus(wanted: int) -> int:
    """The shape that has at least ``wanted`` processors. Raises ``InvalidInput``."""
    if not 1 <= wanted <= _MOST_VCPUS:
        raise InvalidInput(
            f"a virtual machine cannot have {wanted} processors",
            why=f"it takes 1 to {_MOST_VCPUS}",
        )
    for shape in _VCPU_SHAPES:
        if wanted <= shape:
            return shape
    return -(-wanted // 8) * 8
