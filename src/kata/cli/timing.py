"""``--timing``: where the time of a run went, as a table or as one line of JSON, on stderr."""

from __future__ import annotations

import sys

from kata.runtime.timing import phases

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_WIDTH = 30


def report(begin_ns: int, marks: Sequence[tuple[str, int]], form: str | None) -> None:
    """Print the phases since ``begin_ns``; they sum to the total."""
    rows = phases(begin_ns, marks)
    total = (max(moment for _, moment in marks) - begin_ns) / 1e6
    if form == "json":
        import json

        parts = [{"name": name, "ms": round(ms, 3)} for name, ms in rows]
        print(json.dumps({"phases": parts, "total_ms": round(total, 3)}), file=sys.stderr)
        return
    longest = max(ms for _, ms in rows) or 1.0
    for name, ms in rows:
        bar = "#" * round(ms / longest * _WIDTH)
        print(f"{name:<20} {ms:9.1f} ms  {bar}", file=sys.stderr)
    print(f"{'total':<20} {total:9.1f} ms", file=sys.stderr)
