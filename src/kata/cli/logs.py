"""``kata logs``: what a container wrote, byte for byte, each stream to its own."""

from __future__ import annotations

import os
import sys
import time

from kata.cli.context import open_store
from kata.cli.numbers import count, instant
from kata.cli.text import moment
from kata.errors import NotFound
from kata.runtime.store import STOPPED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from kata.cli.parse import Options
    from kata.runtime.store import Store

    Entry = tuple[bytes, bytes, bool, bytes]  # time, stream, whether the line ends, text

_PIECE = 1 << 20
_POLL = 0.1  # seconds between two looks for more
_DESCRIPTORS = {b"stdout": 1, b"stderr": 2}
NOTHING: Entry = (b"", b"stdout", False, b"")  # no more for now: write what was collected


def run(options: Options) -> int:
    """Print the log of a container."""
    store = open_store(options)
    state = store.find(options.container)
    tail = None
    if options.tail not in (None, "all"):
        tail = count(options.tail, "--tail", 'a number of lines, or "all"')
    since = (moment(instant(options.since, "--since")) or "").encode() if options.since else b""
    sys.stdout.flush()
    printer = Printer(stamps=options.timestamps)
    log = Log(f"{store.directory(state.id)}/log")
    try:
        entries: Iterable[Entry] = log.read()
        if since:
            entries = (entry for entry in entries if entry[0] >= since)
        if tail is not None:
            entries = last_lines(entries, tail)
        printer.print(entries)
        if options.follow:
            more = log.follow(lambda: _ended(store, state.id))
            printer.print(entry for entry in more if entry == NOTHING or entry[0] >= since)
    finally:
        log.close()
    return 0


class Printer:
    """Writes entries to the stream they came from, in order, in as few writes as that allows."""

    def __init__(self, *, stamps: bool) -> None:
        self._stamps = stamps
        self._within: set[bytes] = set()  # the streams that are in the middle of a line

    def print(self, entries: Iterable[Entry]) -> None:
        """Write entries; raises ``BrokenPipeError`` if nobody reads them."""
        fd, parts, held = 1, [b""], 0
        for entry in entries:
            target = _DESCRIPTORS[entry[1]]
            if target != fd or held >= _PIECE or entry == NOTHING:
                write_all(fd, b"".join(parts))
                fd, parts, held = target, [b""], 0
            if entry != NOTHING:
                parts.append(self._line(entry))
                held += len(parts[-1])
        write_all(fd, b"".join(parts))

    def _line(self, entry: Entry) -> bytes:
        stamp, stream, ends, text = entry
        begins = stream not in self._within
        (self._within.discard if ends else self._within.add)(stream)
        head = stamp + b" " if self._stamps and begins else b""
        return head + text + b"\n" if ends else head + text


def write_all(fd: int, data: bytes) -> None:
    """Write everything, however long the reader takes."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


class Splitter:
    """Entries out of the bytes of a log; keeps the beginning of one that is not complete."""

    def __init__(self) -> None:
        self._rest = b""

    def read(self, fd: int) -> Iterator[Entry]:
        """All entries from the file's position to its end."""
        while data := os.read(fd, _PIECE):
            *lines, self._rest = (self._rest + data).split(b"\n")
            for line in lines:
                entry = parse_entry(line)
                if entry is not None:
                    yield entry


def parse_entry(line: bytes) -> Entry | None:
    """``TIMESTAMP STREAM F|P TEXT``; None for what is none (a full disk cut it short)."""
    parts = line.split(b" ", 3)
    if len(parts) != 4 or parts[1] not in _DESCRIPTORS or parts[2] not in (b"F", b"P"):
        return None
    return parts[0], parts[1], parts[2] == b"F", parts[3]


def last_lines(entries: Iterable[Entry], limit: int) -> Iterator[Entry]:
    """The entries of the last lines; the pieces of one line stand together."""
    from collections import deque

    lines: deque[list[Entry]] = deque(maxlen=limit)
    open_lines: dict[bytes, list[Entry]] = {}
    for entry in entries:
        line = open_lines.setdefault(entry[1], [])
        line.append(entry)
        if entry[2]:
            lines.append(open_lines.pop(entry[1]))
    lines.extend(open_lines.values())
    for line in lines:
        yield from line


class Log:
    """The log of one container: the file that was rotated away, if any, and the current one."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._fd = _open(path)
        self._splitter = Splitter()

    def read(self) -> Iterator[Entry]:
        """All entries that are there now."""
        older = _open(f"{self._path}.1")
        if older is not None:
            try:
                yield from Splitter().read(older)
            finally:
                os.close(older)
        yield from self._rest()

    def follow(self, ended: Callable[[], bool]) -> Iterator[Entry]:
        """Further entries as they come, through rotations, until the container has ended."""
        while True:
            last = ended()
            yield from self._rest()
            yield NOTHING
            newer = self._newer()
            if newer is not None:
                yield from self._rest()
                self.close()
                self._fd, self._splitter = newer, Splitter()
            elif last:
                return
            else:
                time.sleep(_POLL)

    def close(self) -> None:
        """Close the file."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def _rest(self) -> Iterator[Entry]:
        if self._fd is not None:
            yield from self._splitter.read(self._fd)

    def _newer(self) -> int | None:
        """The log of this name if it is another file by now."""
        newer = _open(self._path)
        if newer is None or self._fd is None:
            return newer
        if os.fstat(newer).st_ino == os.fstat(self._fd).st_ino:
            os.close(newer)
            return None
        return newer


def _ended(store: Store, container_id: str) -> bool:
    try:
        return store.load(container_id).status == STOPPED
    except NotFound:
        return True


def _open(path: str) -> int | None:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
