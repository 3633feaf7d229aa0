"""What a person sees while an image is fetched and unpacked, always on stderr.

The one rule: a task says where it is, and how that looks is decided once: a bar on a terminal (by
``rich`` where it can be imported, else by ourselves), one line for each task elsewhere, or
nothing. Sizes are bytes.
"""

from __future__ import annotations

import contextlib
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import IO, Any

_EVERY_S = 0.1
_WIDTH = 24


class Task:
    """One thing being done, of which ``total`` bytes are to do (0: not known)."""

    def __init__(self, text: str, total: int) -> None:
        self.text = text
        self.total = total
        self.done = 0

    def at(self, done: int) -> None:
        """So many bytes are done."""
        self.done = done
        self._draw()

    def _draw(self) -> None:
        """Nothing to see."""


class Progress:
    """Shows nothing; the base of those that do."""

    @contextlib.contextmanager
    def task(self, text: str, total: int) -> Iterator[Task]:
        """A task that is over at the end of the context."""
        yield Task(text, total)

    def note(self, text: str) -> None:
        """Say something that is worth knowing."""


class Lines(Progress):
    """One line when a task begins."""

    def __init__(self, stream: IO[str], prefix: str = "kata: ") -> None:
        self._stream = stream
        self._prefix = prefix

    @contextlib.contextmanager
    def task(self, text: str, total: int) -> Iterator[Task]:
        """Say what begins."""
        self.note(f"{text} ({size_text(total)})" if total else text)
        yield Task(text, total)

    def note(self, text: str) -> None:
        """Print a line."""
        self._stream.write(f"{self._prefix}{text}\n")
        self._stream.flush()


class Bar(Lines):
    """One line that is drawn over and over."""

    @contextlib.contextmanager
    def task(self, text: str, total: int) -> Iterator[Task]:
        """Draw, and leave nothing of it."""
        task = _Drawn(text, total, self._stream)
        task.at(0)
        try:
            yield task
        finally:
            task.wipe()


class _Drawn(Task):
    def __init__(self, text: str, total: int, stream: IO[str]) -> None:
        super().__init__(text, total)
        self._stream = stream
        self._last = 0.0

    def _draw(self) -> None:
        now = time.monotonic()
        if now - self._last < _EVERY_S:
            return
        self._last = now
        self._stream.write(f"\r{bar(self.text, self.done, self.total, _columns())}\x1b[K")
        self._stream.flush()

    def wipe(self) -> None:
        """Remove the line."""
        self._stream.write("\r\x1b[K")
        self._stream.flush()


class Rich(Progress):
    """Bars drawn by the library ``rich``."""

    def __init__(self, library: Any, console: Any) -> None:
        self._library = library
        self._console = console

    @contextlib.contextmanager
    def task(self, text: str, total: int) -> Iterator[Task]:
        """Draw a bar, and leave nothing of it."""
        rich = self._library
        columns = [rich.SpinnerColumn(), rich.TextColumn("{task.description}", markup=False)]
        columns += [rich.BarColumn(), rich.DownloadColumn(), rich.TransferSpeedColumn()]
        with rich.Progress(*columns, console=self._console, transient=True) as display:
            number = display.add_task(text, total=total or None)
            yield _RichTask(text, total, display, number)

    def note(self, text: str) -> None:
        """Print a line."""
        self._console.print(f"kata: {text}", markup=False, highlight=False)


class _RichTask(Task):
    def __init__(self, text: str, total: int, display: Any, number: Any) -> None:
        super().__init__(text, total)
        self._display = display
        self._number = number

    def _draw(self) -> None:
        self._display.update(self._number, completed=self.done)


def for_people(*, quiet: bool = False) -> Progress:
    """What suits our stderr. Whoever wants ``rich`` makes it importable before."""
    if quiet:
        return Progress()
    if not sys.stderr.isatty():
        return Lines(sys.stderr)
    try:
        from rich import progress as library
        from rich.console import Console
    except ImportError:
        return Bar(sys.stderr)
    return Rich(library, Console(stderr=True))


def bar(text: str, done: int, total: int, columns: int) -> str:
    """A line that shows how far a task is, no wider than ``columns``."""
    if not total:
        return f"{text}  {size_text(done)}"[: columns - 1]
    part = min(done / total, 1.0)
    full = int(part * _WIDTH)
    drawn = "#" * full + "-" * (_WIDTH - full)
    end = f"  [{drawn}] {int(part * 100):3d} %  {size_text(done)}/{size_text(total)}"
    room = columns - 1 - len(end)
    return (text[:room] + end) if room > 8 else text[: columns - 1]


def size_text(size: int) -> str:
    """Bytes for people, in powers of 1000: ``12.3 MB``."""
    value = float(size)
    for unit in ("B", "kB", "MB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} GB"


def _columns() -> int:
    import os

    try:
        return max(os.get_terminal_size(sys.stderr.fileno()).columns or 80, 20)
    except OSError:
        return 80
