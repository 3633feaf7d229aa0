"""``kata gc``: remove what nobody owns any more, and say what that was."""

from __future__ import annotations

import os

from kata.cli.context import configuration, open_store, tell_damaged
from kata.cli.output import print_json
from kata.errors import HostError
from kata.image import scratch
from kata.image.store import Store as Images
from kata.runtime import machines
from kata.runtime.cleanup import collect

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kata.cli.parse import Options


def _template(name: str) -> str:
    half = name.removeprefix(".new-")
    return f"template {name}" if half == name else f"half-made template {half}"


def run(options: Options) -> int:
    """Collect garbage: of containers, of templates that nobody will ask for, of pulls."""
    config = configuration(options)
    removed = collect(open_store(options), tell_damaged)
    templates = machines.templates(config, config.hypervisor.path)
    failure = None
    try:
        removed += [_template(name) for name in templates.collect()]
    except HostError as error:
        failure = error  # told last: the rest is collected all the same
    leftovers = Images(config.runtime.data_root).scratch
    if os.path.isdir(leftovers):
        removed += [f"directory {path}" for path in scratch.collect(leftovers)]
    if options.format == "json":
        print_json(removed)
    elif removed:
        for what in removed:
            print(f"removed {what}")
    elif failure is None:
        print("nothing to remove")
    if failure is not None:
        raise failure
    return 0
