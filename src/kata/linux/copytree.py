"""Copying a directory tree by descriptors: no path is looked up twice, no link followed.

The rule: what a file is, whose, and with which mode and times, is copied with its content; extended
attributes that the target cannot hold are left out.
"""

from __future__ import annotations

import os

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_CHUNK = 1 << 20
_KIND, _DIR, _LINK, _REGULAR = 0o170000, 0o040000, 0o120000, 0o100000


def copy(source: int, target: int) -> None:
    """Copy what is in one directory into another, empty one, and the directory's own attributes.

    Both are descriptors, O_PATH will do. Raises ``OSError``.
    """
    source, target = (os.open(".", _DIRECTORY, dir_fd=fd) for fd in (source, target))
    try:
        for name in os.listdir(source):
            _copy_entry(source, target, name)
        _settle(source, target)
    finally:
        os.close(source)
        os.close(target)


def _copy_entry(source: int, target: int, name: str) -> None:
    status = os.stat(name, dir_fd=source, follow_symlinks=False)
    kind = status.st_mode & _KIND
    if kind == _DIR:
        os.mkdir(name, 0o700, dir_fd=target)
        below = [os.open(name, _DIRECTORY, dir_fd=fd) for fd in (source, target)]
        try:
            copy(*below)
        finally:
            for fd in below:
                os.close(fd)
        return
    if kind == _REGULAR:
        _copy_file(source, target, name)
        return
    if kind == _LINK:
        os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
    else:
        os.mknod(name, status.st_mode, status.st_rdev, dir_fd=target)
        os.chmod(name, status.st_mode & 0o7777, dir_fd=target)
    os.chown(name, status.st_uid, status.st_gid, dir_fd=target, follow_symlinks=False)


def _copy_file(source: int, target: int, name: str) -> None:
    reader = os.open(name, _FILE, dir_fd=source)
    try:
        writer = os.open(name, _NEW, 0o600, dir_fd=target)
        try:
            while data := os.read(reader, _CHUNK):
                while data:
                    data = data[os.write(writer, data) :]
            _settle(reader, writer)
        finally:
            os.close(writer)
    finally:
        os.close(reader)


def _settle(source: int, target: int) -> None:
    """Give a copy what its original has beside the content."""
    status = os.fstat(source)
    os.fchown(target, status.st_uid, status.st_gid)
    os.fchmod(target, status.st_mode & 0o7777)  # after the owner: changing that clears bits
    for name in os.listxattr(source):
        try:
            os.setxattr(target, name, os.getxattr(source, name))
        except OSError:
            continue
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))
