#!/usr/bin/python3
"""Write what ``kata install`` writes on a node, as files to look at or to put there by hand.

    drop_ins.py [DIR]

The text is the command's own: a test fails where the files beside this program differ.
"""

from __future__ import annotations

import os
import sys

sys.path.insert(0, os.path.abspath(f"{__file__}/../../../src"))

from kata.cli.engines import containerd, crio

PREFIX = "/opt/kata"  # where the node installer puts the programs


def files() -> dict[str, str]:
    """The files by name."""
    shim = f"{PREFIX}/bin/{containerd.SHIM}"
    return {
        "containerd-1.toml": containerd.text(2, shim, old=True),
        "containerd-2.toml": containerd.text(3, shim, old=False),
        "crio.conf": crio.text(f"{PREFIX}/bin/kata-runtime", shim),
    }


def main() -> None:
    """Write them."""
    directory = sys.argv[1] if len(sys.argv) > 1 else os.path.abspath(f"{__file__}/../drop-ins")
    for name, text in files().items():
        with open(f"{directory}/{name}", "w", encoding="utf-8") as file:
            file.write(text)


if __name__ == "__main__":
    main()
