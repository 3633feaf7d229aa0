"""The project speaks of itself alone, and leaves nothing to be done."""

import os
import re

import pytest

from support import source

FORBIDDEN = {
    r"(?<![\w./}])/work/[a-z]": "a path of somebody's machine",
    r"\bissues? #?\d+\b(?! of)": "a ticket; say what is so instead",
    r"\bsub-?agents?\b": "how it was written",
    r"\bprototype-facts\b|shared/(DESIGN|STYLE|reference)": "a page that is not here",
    r"\b(TODO|FIXME|XXX|HACK)\b": "something left to do",
}
ENDINGS = (".py", ".md", ".toml", ".txt", ".sh", ".cfg", ".json", ".yml", ".yaml")
NAMES = {"Makefile", "README.md", ".ci/run"}
PATHS = [p for p in source.files(".", "") if p.endswith(ENDINGS) or os.path.normpath(p) in NAMES]


@pytest.mark.parametrize("pattern", FORBIDDEN, ids=FORBIDDEN.values())
def test_words_that_do_not_belong(pattern):
    """No file speaks of what is not part of the project."""
    found = []
    for path in PATHS:
        if os.path.basename(path) == os.path.basename(__file__):
            continue
        for number, line in enumerate(source.text(path).splitlines(), 1):
            if re.search(pattern, line):
                found.append(f"{path}:{number}: {line.strip()[:120]}")
    assert not found, "\n".join(found)


def test_all_kinds_of_files_are_read():
    """The search reads source, tests, pages and the build."""
    kinds = {os.path.normpath(path).split(os.sep)[0] for path in PATHS}
    assert {"src", "tests", "docs", "pyproject.toml"} <= kinds
