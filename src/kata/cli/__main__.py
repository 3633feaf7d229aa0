"""``python3 -m kata.cli``: the command line without the installed program."""

from __future__ import annotations

import sys

from kata.cli.main import enter

enter(sys.argv[1:])
