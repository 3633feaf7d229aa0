"""``kata gc``: remove what nobody owns any more, and say what that was."""

from __future__ import annotations

from kata.cli.context import open_store
from kata.cli.output import print_json
from kata.runtime.cleanup import collect

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kata.cli.parse import Options


def run(options: Options) -> int:
    """Collect garbage."""
    removed = collect(open_store(options))
    if options.format == "json":
        print_json(removed)
    elif removed:
        for what in removed:
            print(f"removed {what}")
    else:
        print("nothing to remove")
    return 0
