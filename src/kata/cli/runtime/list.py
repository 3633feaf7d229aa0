"""``kata-runtime list``: the containers below a state root."""

from __future__ import annotations

import sys

from kata.cli.runtime.containers import open_store
from kata.cli.runtime.state import document, rfc3339
from kata.errors import InvalidInput
from kata.wire.quickjson import dumps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kata.cli.parse import Options
    from kata.errors import KataError


def _tell(error: KataError) -> None:
    print(f"kata-runtime: {error}", file=sys.stderr)


def run(options: Options) -> int:
    """Print them."""
    states = sorted(open_store(options).list(_tell), key=lambda state: state.name)
    if options.quiet:
        for state in states:
            print(state.name)
        return 0
    if options.format == "json":
        print(dumps([document(state) for state in states]) if states else "null")
        return 0
    if options.format not in (None, "table"):
        raise InvalidInput("invalid format option")
    rows = [("ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER")]
    rows += [
        (s.name, str(s.pid), s.status, s.bundle, rfc3339(s.created_ns), "root") for s in states
    ]
    widths = [max(12, *(len(row[i]) + 3 for row in rows)) for i in range(len(rows[0]))]
    for row in rows:
        print("".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())
    return 0
