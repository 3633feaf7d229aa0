"""Where programs are that no setting names.

The one rule: what is found is an absolute path, on ``$PATH`` first.
"""

from __future__ import annotations

import os

_SEARCH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def program(name: str, also: tuple[str, ...] = ()) -> str:
    """The path of a program on ``$PATH``, the usual path, or in ``also``; "" if there is none."""
    path = f"{os.environ.get('PATH', '')}:{_SEARCH}"
    for directory in (*path.split(":"), *also):
        candidate = f"{directory}/{name}"
        if directory.startswith("/") and os.access(candidate, os.X_OK):
            return candidate
    return ""
