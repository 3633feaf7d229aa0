"""``kata gc``: remove what nobody owns any more, and say what that was."""

from __future__ import annotations

import os

from kata.cli.context import configuration, open_store
from kata.cli.output import print_json
from kata.image import scratch
from kata.image.store import Store as Images
from kata.runtime import machines
from kata.runtime.cleanup import collect

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kata.cli.parse import Options


def run(options: Options) -> int:
    """Collect garbage: of containers, of templates that nobody will ask for, of pulls."""
    config = configuration(options)
    removed = collect(open_store(options))
    templates = machines.templates(config, config.hypervisor.path)
    removed += [f"template {key}" for key in templates.collect()]
    leftovers = Images(config.runtime.data_root).scratch
    if os.path.isdir(leftovers):
        removed += [f"directory {path}" for path in scratch.collect(leftovers)]
    if options.format == "json":
        print_json(removed)
    elif removed:
        for what in removed:
            print(f"removed {what}")
    else:
        print("nothing to remove")
    return 0
