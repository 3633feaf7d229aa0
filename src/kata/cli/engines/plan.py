"""What is to be done to an engine's configuration, as a value."""

from __future__ import annotations

from kata.errors import WrongState
from kata.wire.record import record

MARK = '# written by "kata install {}"; "kata install {} --undo" removes it\n'


@record
class Plan:
    """One file of ours with its whole text, and what to do when it is there.

    ``path`` is "" where there is nothing to write, and ``said`` tells why.
    """

    engine: str
    path: str = ""
    text: str = ""
    restart: str = ""
    then: str = ""
    said: str = ""


class ByHand(WrongState):
    """The engine is configured in a file that is not ours; ``lines`` are for it."""

    def __init__(self, what: str, *, why: str, path: str, lines: str) -> None:
        hint = f'add the lines above to "{path}"' if lines else f'see "{path}"'
        super().__init__(what, why=why, hint=f"{hint}, and run it again to check")
        self.path = path
        self.lines = lines


def marked(engine: str, text: str) -> str:
    """The text of a file with its first line, which tells people whose it is."""
    return MARK.format(engine, engine) + text
