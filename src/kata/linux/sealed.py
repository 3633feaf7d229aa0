"""Descriptors that cannot become more than they are, for a program with rights over files.

Whoever overrides permissions and has a /proc/self/fd could open again for writing what it was given
to read. The one rule: what is opened here lies in a mount of its own, seen by nobody, in which
nothing can be written and no device be opened. Sources: open_tree(2), mount_setattr(2).
"""

from __future__ import annotations

import os

from kata.linux import syscalls as sys


def open_read_only(path: str) -> int:
    """A file or block device, for reading and for nothing else ever. Raises ``OSError``."""
    directory, _, name = path.rpartition("/")
    place = os.open(directory or "/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        tree = sys.clone_tree(place, 0)
    finally:
        os.close(place)
    try:
        fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=tree)
        try:  # not before: a device could not be opened then
            attributes = sys.MOUNT_ATTR_RDONLY | sys.MOUNT_ATTR_NODEV
            sys.mount_setattr("", sys.AT_EMPTY_PATH, attributes, directory=tree)
        except OSError:
            os.close(fd)
            raise
    finally:
        os.close(tree)
    return fd
