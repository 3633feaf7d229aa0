"""``kata factory``: the templates that virtual machines are copied from."""

from __future__ import annotations

import sys
import time

from kata.cli.context import configuration
from kata.cli.output import show_facts, show_list
from kata.cli.text import age, size
from kata.errors import InvalidInput
from kata.oci import options as values
from kata.runtime import guest_image, machines

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from kata.cli.parse import Options
    from kata.config.settings import Config
    from kata.runtime.template import Templates

_MIB = 1 << 20
_NANO = 1_000_000_000
HEADERS = ("TEMPLATE", "MACHINE", "MEMORY", "VCPUS", "ON DISK", "MADE", "STATE")
_SHOWN = 12  # characters of a key
UNFINISHED = ("half made", "being made")


def run(options: Options) -> int:
    """Do what the verb says."""
    actions = {"create": _create, "status": _status, "destroy": _destroy}
    return actions[options.verb.split()[1]](options, configuration(options))


def _create(options: Options, config: Config) -> int:
    settings = config.hypervisor
    memory = -(-values.size(options.memory) // _MIB) if options.memory else settings.default_memory
    nano = values.cpus(options.cpus) if options.cpus else settings.default_vcpus * _NANO
    if not config.factory.enable_template:
        raise InvalidInput(
            "templates are switched off",
            why="enable_template is false in the configuration",
            hint="kata env shows which file that is",
        )
    image = guest_image.find(config.runtime.guest_image, config.runtime.data_root)
    machine = machines.describe(config, image, vcpus=-(-nano // _NANO), memory_mib=memory)
    launch = machines.accelerate(machine, config, image.kernel_release)
    known = machines.templates(config, launch.program)
    template = known.find(launch.machine)
    made = template is None
    if template is None:
        template = known.create(launch.machine, say=_say)
    facts = {
        "key": template.key,
        "directory": template.directory,
        "accelerator": launch.machine.accelerator,
        "vcpus": launch.machine.vcpus,
        "memory_mib": launch.machine.memory_mib,
        "made": made,
    }
    show_facts(options.format, facts)
    return 0


def _status(options: Options, config: Config) -> int:
    now = time.time_ns()
    show_list(options.format, _templates(config).status(), HEADERS, lambda item: _row(item, now))
    return 0


def _row(item: Mapping[str, Any], now_ns: int) -> Sequence[str]:
    if item["flaw"] in UNFINISHED:
        state = item["flaw"]
    elif not item["sound"]:
        state = f"damaged: {item['flaw']}" if item["flaw"] else "damaged"
    else:
        state = "ready" if item["current"] else "stale"
    known = "memory_mib" in item  # its manifest could be read
    return (
        item["key"].removeprefix(".new-")[:_SHOWN],
        f"{item['machine_type']}, {item['accelerator']}" if known else "",
        f"{item['memory_mib']} MiB" if known else "",
        str(item["vcpus"]) if known else "",
        size(item.get("state_bytes", 0) + item.get("memory_bytes", 0)),
        age(item.get("made_ns", 0), now_ns),
        state,
    )


def _destroy(_options: Options, config: Config) -> int:
    for key in _templates(config).destroy():
        print(key)
    return 0


def _templates(config: Config) -> Templates:
    """The templates; QEMU is not asked for, so that they can be listed without it."""
    return machines.templates(config, config.hypervisor.path)


def _say(text: str) -> None:
    print(f"kata: {text}", file=sys.stderr, flush=True)
