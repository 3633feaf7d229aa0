"""The name that was probably meant; imported only once a name turned out to be wrong."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


def nearest(name: str, candidates: Sequence[str]) -> str:
    """The candidate most like the name, or "" if none is near.

    Near is one slip of the fingers for a short name, one more for every four further characters.
    """
    slips = [(distance(name, c), abs(len(name) - len(c)), c) for c in candidates]
    fewest, _, close = min(slips, default=(1, 0, ""))
    if close and fewest <= 1 + (max(len(name), len(close)) - 2) // 4:
        return close
    starts = [candidate for candidate in candidates if name and candidate.startswith(name)]
    return starts[0] if len(starts) == 1 else ""


def distance(one: str, other: str) -> int:
    """How many characters to change, add, leave out, or exchange with their neighbour."""
    before: list[int] = []
    row = list(range(len(other) + 1))
    for i, a in enumerate(one, 1):
        before, above, row = row, before, [i]
        for j, b in enumerate(other, 1):
            cost = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (a != b))
            if i > 1 and j > 1 and a == other[j - 2] and one[i - 2] == b:
                cost = min(cost, above[j - 2] + 1)
            row.append(cost)
    return row[-1]
