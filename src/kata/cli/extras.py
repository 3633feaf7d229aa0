"""Libraries beside the package that make things nicer for people; never used on the hot path.

They live in a virtual environment of their own: ``<prefix>/lib/kata/extras`` when installed,
``.venv`` in a checkout. Everything works without them.
"""

from __future__ import annotations

import os
import sys


def available() -> bool:
    """Make the extra libraries importable, after all others; tells whether there are any."""
    for directory in candidates():
        if os.path.isdir(directory):
            if directory not in sys.path:
                sys.path.append(directory)
            return True
    return any(path.endswith(("site-packages", "dist-packages")) for path in sys.path)


def candidates() -> list[str]:
    """Where the extra libraries may be."""
    package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    above = os.path.dirname(package)
    packages = f"lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages"
    found = [f"{above}/extras/{packages}", f"{above}/kata-extras/{packages}"]
    if os.path.basename(above) == "src":
        found.append(f"{os.path.dirname(above)}/.venv/{packages}")
    return found
