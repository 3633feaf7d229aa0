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
    from collections.abc import Iterable, Iterator

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
    path = f"{store.directory(state.id)}/log"
    file = _open(path)
    splitter = Splitter()
    entries: Iterable[Entry] = read(path, file, splitter)
    if since:
        entries = (entry for entry in entries if entry[0] >= since)
    if tail is not None:
        entries = last_lines(entries, tail)
    printer.print(entries)
    if options.follow and file is not None:
        more = follow(store, state.id, (path, file), splitter)
        printer.print(entry for entry in more if entry == NOTHING or entry[0] >= since)
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


def read(path: str, file: int | None, splitter: Splitter) -> Iterator[Entry]:
    """The entries of the log that was rotated away, if any, and of the current one."""
    older = _open(f"{path}.1")
    if older is not None:
        yield from Splitter().read(older)
        os.close(older)
    if file is not None:
        yield from splitter.read(file)


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


def follow(
    store: Store, container_id: str, log: tuple[str, int], splitter: Splitter
) -> Iterator[Entry]:
    """Entries as they come, through rotations, until the container has ended or is gone."""
    path, file = log
    while True:
        ended = _ended(store, container_id)
        yield from splitter.read(file)
        yield NOTHING
        newer = _rotated(path, file)
        if newer is not None:
            yield from splitter.read(file)
            os.close(file)
            file, splitter = newer, Splitter()
        elif ended:
            return
        else:
            time.sleep(_POLL)


def _rotated(path: str, file: int) -> int | None:
    """The log of this name if it is another file by now."""
    newer = _open(path)
    if newer is not None and os.fstat(newer).st_ino == os.fstat(file).st_ino:
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
