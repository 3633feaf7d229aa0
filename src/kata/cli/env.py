"""``kata env``: the settings in force, and what they lead to on this host."""

from __future__ import annotations

import os

from kata.cli.context import configuration
from kata.cli.output import show_facts
from kata.cli.version import versions
from kata.config import render
from kata.errors import KataError
from kata.hypervisors.qemu import probe
from kata.storage import virtiofsd

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeVar

    from kata.cli.parse import Options
    from kata.config.settings import Config

    T = TypeVar("T")


def run(options: Options) -> int:
    """Print facts; what is missing on this host is null ("-" in the table)."""
    show_facts(options.format, facts(configuration(options)))
    return 0


def facts(config: Config) -> dict[str, Any]:
    """All facts, by subject."""
    qemu = _or_none(lambda: probe.locate(config.hypervisor.path))
    daemon = _or_none(lambda: virtiofsd.find(config.shared_fs.daemon))
    host = os.uname()
    return {
        "versions": versions(),
        "host": {"kernel": host.release, "machine": host.machine, "cpus": os.cpu_count()},
        "qemu": {"path": qemu, "version": _first_line(qemu)},
        "virtiofsd": {"path": daemon, "version": _first_line(daemon)},
        "guest_image": _guest_image(config),
        "configuration": list(config.sources),
        "settings": render.values(config),
    }


def _guest_image(config: Config) -> dict[str, Any] | None:
    from kata.runtime import guest_image

    image = _or_none(
        lambda: guest_image.find(config.runtime.guest_image, config.runtime.data_root)
    )
    if image is None:
        return None
    return {
        "directory": image.directory,
        "digest": image.digest,
        "kernel": image.kernel_release,
        "agent": image.agent_version,
        "agent_api": image.api_hash,
        "python": image.python,
    }


def _first_line(program: str | None) -> str | None:
    """The first line of ``PROGRAM --version``."""
    if program is None:
        return None
    from subprocess import DEVNULL, PIPE, STDOUT, SubprocessError, run

    try:
        result = run([program, "--version"], stdin=DEVNULL, stderr=STDOUT, stdout=PIPE, timeout=10)
    except (OSError, SubprocessError):
        return None
    text: str = result.stdout.decode(errors="replace")
    return text.splitlines()[0] if text.strip() else None


def _or_none(find: Callable[[], T]) -> T | None:
    try:
        return find()
    except KataError:
        return None
