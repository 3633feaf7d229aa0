"""What process lists show of a process: its name and its command line.

Source: proc(5); prctl(2), PR_SET_NAME. The command line is read from the memory of the process, so
it can be no longer than what it was started with.
"""

from __future__ import annotations

import ctypes
import os

from kata.linux import syscalls as sc

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_NAME = 15  # bytes of a process's name that the kernel keeps


def set_title(words: Sequence[str]) -> None:
    """Show ``words`` as the command line, cut to the room there is; the environment is hidden."""
    sc.prctl(sc.PR_SET_NAME, os.fsencode(os.path.basename(words[0]))[:_NAME] + b"\0")
    with open("/proc/self/stat", "rb") as file:
        fields = file.read().rpartition(b")")[2].split()
    start, end = int(fields[45]), int(fields[46])  # arg_start, arg_end: 48 and 49 of the line
    text = b"\0".join(os.fsencode(word) for word in words)[: end - start - 1]
    ctypes.memmove(start, text.ljust(end - start, b"\0"), end - start)
    start, end = int(fields[47]), int(fields[48])  # env_start, env_end: the caller's
    ctypes.memset(start, 0, end - start)
