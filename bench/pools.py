"""Engines, and ``kata run``, that take ready sandboxes from a pool; beside runc, and a template.

The one rule: a sample begins when the pool is full and quiet: what is measured is a start that
finds a ready one. Filling it again is not in the figure; starts that find none are the other parts.
"""

from __future__ import annotations

import os
import time

import arms
import containerds
import runtimes

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from support.pool import Pool

    Interleave = Callable[[list[arms.Arm], int], None]

_QUIET_S = 0.3


class Waiting(arms.Arm):
    """An arm that waits before each sample until the pool has so many."""

    def __init__(self, arm: arms.Arm, pool: Pool, size: int) -> None:
        super().__init__(f"pool: {arm.name}", arm.meaning, arm.command)
        self._arm, self._pool, self._size = arm, pool, size

    def measure(self) -> dict[str, float]:
        """What the arm measures."""
        self._pool.until_full(self._size)
        time.sleep(_QUIET_S)
        return self._arm.measure()


def run(kata: arms.Kata, interleave: Interleave, image: str, samples: int) -> list[arms.Arm]:
    """``kata run`` with a pool, and from a template in a state root beside it."""
    from support.pool import serving

    words = ["run", "--rm", image, "echo", arms.WORD.decode().strip()]
    state = f"{kata.state}-pool"
    argv = [kata.words[0], "--root", state, "--data-root", kata.data]
    os.mkdir(state)
    with serving(argv, None, 1, f"{kata.state}-factory.log") as pool:
        made = [
            Waiting(arms.Arm("kata run", "kata run", [*argv, *words]), pool, 1),
            Waiting(arms.Arm("kata run, template", "kata run without it", [*kata.words, *words]),
                    pool, 1),
        ]  # fmt: skip
        interleave(made, samples)
    return made


def podman(options: argparse.Namespace, rootfs: str, interleave: Interleave) -> list[arms.Arm]:
    """Whole ``podman run``s."""
    from support.pool import serving

    ours = f"{os.path.dirname(options.program)}/kata-runtime"
    with runtimes.podman(rootfs, options.data) as (place, environment):
        log = f"{place.directory}/factory.log"
        with serving(place.argv(options.program), environment, 2, log) as pool:
            made = [
                Waiting(runtimes.podman_run(name, program, place, environment), pool, 2)
                for name, program in (("kata", ours), ("runc", "runc"))
            ]
            interleave(made, options.samples)
    return made


def containerd(
    options: argparse.Namespace, interleave: Interleave
) -> tuple[list[arms.Arm], dict[str, object]]:
    """Whole ``ctr run``s, one and ten at once, pods; and the memory of a shim of the pool."""
    from support.engines import IMAGE
    from support.node import Ctr
    from support.pool import serving

    most = containerds.AT_ONCE
    with containerds.containerd(options.data) as daemon:
        place = daemon.place
        log = f"{place.directory}/factory.log"
        with serving(place.argv(options.program), place.env, most, log) as pool:
            ran = {n: containerds.Ran(Ctr(place, n), IMAGE) for n in containerds.RUNTIMES}
            directory = f"{place.directory}/pods"
            plain = [
                *ran.values(),
                *(containerds.PodArm(daemon, n, directory, IMAGE) for n in containerds.RUNTIMES),
            ]
            made = [Waiting(arm, pool, most) for arm in plain]
            interleave(made, options.samples)
            together = Waiting(containerds.Together(ran["kata"]), pool, most)
            one = Waiting(ran["kata"], pool, most)
            interleave([together, one], max(3, options.samples // 4))
            pool.until_full(most)
            return [*made, together], containerds.served(Ctr(place, "kata"))


def measure(
    options: argparse.Namespace, kata: arms.Kata, image: str, rootfs: str, interleave: Interleave
) -> tuple[list[arms.Arm], dict[str, object]]:
    """The arms of this part, measured, and the memory of a shim that was a member."""
    made = run(kata, interleave, image, options.samples)
    made += podman(options, rootfs, interleave)
    more, shim = containerd(options, interleave)
    return [*made, *more], shim
