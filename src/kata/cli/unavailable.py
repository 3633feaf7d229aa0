"""The programs that container engines will call, as far as they exist: they tell their version.

Anything else is refused in one clear line, so that an engine configured for them says why it
cannot start a container, in place of failing later in some strange way.
"""

from __future__ import annotations

import sys

from kata.version import VERSION

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_WORK = {
    "kata-runtime": "run containers for engines that call an OCI runtime",
    "containerd-shim-kata-v2": "serve containerd",
}


def main(argv: Sequence[str], program: str) -> int:
    """Print the version if that is asked for, else say what does not work yet; gives 0 or 1."""
    if list(argv[:1]) in (["--version"], ["-v"], ["-version"]):
        print(f"{program} version {VERSION}")
        return 0
    print(
        f"{program}: this version of kata cannot {_WORK.get(program, 'do that')} yet\n"
        '  hint: "kata run" runs containers now; see kata --help',
        file=sys.stderr,
    )
    return 1
