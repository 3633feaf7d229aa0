"""Running the tools that images are made with; what they complain of becomes our error.

The one rule: no shell, no inherited standard input, and a child never outlives the call.
"""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from contextlib import contextmanager
from typing import IO

from kata.errors import HostError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_TAIL = 400  # characters of a tool's complaint that are worth showing

PACKAGES = {  # the Debian package of each tool, for the hint
    "apt-get": "apt", "apt-cache": "apt", "dpkg-deb": "dpkg", "zstd": "zstd",
}  # fmt: skip


def run(
    argv: Sequence[str],
    *,
    data: bytes = b"",
    environment: Mapping[str, str] | None = None,
    cwd: str | None = None,
) -> bytes:
    """The standard output of a tool that was fed ``data``. Raises ``HostError`` if it fails."""
    try:
        done = subprocess.run(
            argv, input=data, capture_output=True, env=environment, cwd=cwd, check=False
        )
    except OSError as error:
        raise missing(argv[0], error) from None
    if done.returncode:
        raise failed(argv, done.returncode, done.stderr)
    return done.stdout


@contextmanager
def reading(argv: Sequence[str]) -> Iterator[IO[bytes]]:
    """The standard output of a tool while it runs. Raises ``HostError`` if it fails."""
    try:
        process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
    except OSError as error:
        raise missing(argv[0], error) from None
    try:
        assert process.stdout is not None
        yield process.stdout
        while process.stdout.read(1 << 20):
            pass
        _, complaint = process.communicate()
        if process.returncode:
            raise failed(argv, process.returncode, complaint)
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def require(tool: str) -> None:
    """Raises ``HostError`` if a tool is not there."""
    if shutil.which(tool) is None:
        raise missing(tool, FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT)))


def missing(tool: str, error: OSError) -> HostError:
    """A tool that cannot be started."""
    name = tool.rpartition("/")[2]
    hint = f"apt-get install {PACKAGES[name]}" if name in PACKAGES else ""
    return HostError(f'cannot run "{name}"', why=error.strerror or "", hint=hint)


def failed(argv: Sequence[str], code: int, complaint: bytes) -> HostError:
    """A tool that ended badly, in its own last words."""
    ended = f"exit code {code}" if code > 0 else f"signal {-code}"
    words = complaint.decode(errors="replace").strip()[-_TAIL:]
    return HostError(f'"{argv[0].rpartition("/")[2]}" failed', why=words or ended)
