"""The name that was probably meant; imported only once a name turned out to be wrong."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


def nearest(name: str, candidates: Sequence[str]) -> str:
    """The candidate most like the name, or "" if none is near."""
    from difflib import get_close_matches

    close = get_close_matches(name, candidates, n=1, cutoff=0.6)
    if close:
        return close[0]
    starts = [candidate for candidate in candidates if name and candidate.startswith(name)]
    return starts[0] if len(starts) == 1 else ""
